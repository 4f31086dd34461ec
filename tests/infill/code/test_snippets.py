"""Retrieval of lines from other files."""

from __future__ import annotations

from infill.code.snippets import snippet

USERS = "".join(f"def user_{i}(account):\n    return account.lookup({i})\n\n\n" for i in range(30))
PRICES = (
    "import decimal\n\n\nclass PriceTable:\n    def discount_for(self, customer, basket):\n"
    "        return self.rates[customer.level] * basket.total\n\n    def clear(self):\n        self.rates = {}\n"
)


def test_the_lines_that_share_rare_names_are_shown() -> None:
    near = "table = PriceTable()\nfor customer in shop.customers:\n    value = table.discount_for(customer, "
    found = snippet(near, [USERS, PRICES], 250)
    assert "def discount_for(self, customer, basket):" in found
    assert len(found) <= 250 and found.endswith("\n") and all(line in PRICES.split("\n") for line in found.split("\n"))


def test_frequent_names_count_little() -> None:
    near = "account = lookup(account)\nreturn account.lookup(rates[basket])\nuser_3 customer discount_for"
    assert "discount_for" in snippet(near, [USERS, PRICES], 250)


def test_without_names_in_common_nothing_is_shown() -> None:
    assert snippet("alpha beta gamma delta", [USERS, PRICES], 400) == ""
    assert snippet("", [USERS], 400) == "" == snippet("account lookup user_1", [], 400)


def test_lines_near_the_hole_are_not_shown_again() -> None:
    near = PRICES + "\nvalue = PriceTable().discount_for(customer, basket)\n"
    assert "discount_for" not in snippet(near, [PRICES], 2000)


def test_a_line_above_the_limit_is_left_out() -> None:
    long = "values = [" + "customer, discount_for, basket, " * 100 + "]\n"
    assert snippet("customer discount_for basket", [long], 200) == ""
    assert "PriceTable" in snippet("customer discount_for PriceTable", [long + PRICES], 300)
