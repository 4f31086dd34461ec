// The difference between two texts, line by line. Must not know VS Code.

/** old[start..end) becomes `lines`. */
export interface Hunk {
    readonly start: number;
    readonly end: number;
    readonly lines: readonly string[];
}

/** The hunks from `old` to `now`, by a longest common subsequence. */
export function lineDiff(old: readonly string[], now: readonly string[]): Hunk[] {
    const common = old.map(() => new Array<number>(now.length + 1).fill(0));
    common.push(new Array<number>(now.length + 1).fill(0));
    for (let i = old.length - 1; i >= 0; i--) {
        for (let j = now.length - 1; j >= 0; j--) {
            common[i][j] = old[i] === now[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
        }
    }
    const hunks: Hunk[] = [];
    let [i, j] = [0, 0];
    while (i < old.length || j < now.length) {
        const [start, first] = [i, j];
        while ((i < old.length || j < now.length) && old[i] !== now[j]) {
            const isAdded = i === old.length || (j < now.length && common[i][j + 1] > common[i + 1][j]);
            if (isAdded) {
                j++;
            } else {
                i++;
            }
        }
        if (i > start || j > first) {
            hunks.push({ start, end: i, lines: now.slice(first, j) });
        }
        if (i < old.length && j < now.length) {
            i++;
            j++;
        }
    }
    return hunks;
}
