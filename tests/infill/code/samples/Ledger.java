package org.example.ledger;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** The bookings of an account. */
public final class Ledger {
    private final Map<String, List<Booking>> byAccount;

    Ledger(Map<String, List<Booking>> byAccount) {
        this.byAccount = Map.copyOf(byAccount);
    }

    long balance(String account) {
        long total = 0;
        for (Booking booking : byAccount.getOrDefault(account, List.of())) {
            if (booking.isCancelled()) {
                continue;
            }
            total += booking.amount();
        }
        return total;
    }

    List<String> overdrawn(long limit) {
        List<String> found = new ArrayList<>();
        for (int i = 0; i < accounts().size(); i++) {
            String account = accounts().get(i);
            if (balance(account) < -limit) {
                found.add(String.format("%s: %d", account, balance(account)));
            }
        }
        return found;
    }

    private List<String> accounts() {
        return byAccount.keySet().stream().sorted((a, b) -> a.compareTo(b)).toList();
    }
}
