// Runs short programs and reads what they print. Must not know VS Code's windows.

import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';

export interface Ended {
    code: number | null;
    output: string;
}

const isWindows = process.platform === 'win32';

/** The full path of a program on PATH, or undefined. */
export function onPath(name: string): string | undefined {
    const endings = isWindows ? ['.exe', '.cmd', '.bat'] : [''];
    for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
        for (const ending of endings) {
            const file = path.join(folder, name + ending);
            if (path.isAbsolute(file) && isExecutable(file)) {
                return file;
            }
        }
    }
    return undefined;
}

function isExecutable(file: string): boolean {
    try {
        fs.accessSync(file, fs.constants.X_OK);
        return fs.statSync(file).isFile();
    } catch {
        return false;
    }
}

/** A program of a Python environment: `inEnvironment('/venv', 'python')` is /venv/bin/python. */
export function inEnvironment(folder: string, name: string): string {
    return isWindows ? path.join(folder, 'Scripts', `${name}.exe`) : path.join(folder, 'bin', name);
}

/**
 * Runs a program to its end; `onLine` sees each line that it prints, on either stream. `signal` ends it and all that it
 * started. A program that cannot be started ends with the code null and the reason as its output.
 */
export function run(
    command: string,
    args: readonly string[],
    options: { signal?: AbortSignal; onLine?: (line: string) => void } = {},
): Promise<Ended> {
    return new Promise((resolve) => {
        const child = spawn(command, args, { detached: !isWindows, stdio: ['ignore', 'pipe', 'pipe'] });
        const stop = () => endTree(child.pid);
        let output = '';
        let line = '';
        const read = (chunk: Buffer) => {
            const text = chunk.toString();
            output += text;
            const lines = (line + text).split(/\r?\n|\r/);
            line = lines.pop() ?? '';
            lines.filter((one) => one.trim()).forEach((one) => options.onLine?.(one));
        };
        const end = (code: number | null, text: string) => {
            options.signal?.removeEventListener('abort', stop);
            resolve({ code, output: text });
        };
        child.stdout.on('data', read);
        child.stderr.on('data', read);
        child.on('error', (error) => end(null, error.message));
        child.on('close', (code) => end(code, output));
        options.signal?.addEventListener('abort', stop);
        if (options.signal?.aborted) {
            stop();
        }
    });
}

function endTree(pid: number | undefined): void {
    if (pid === undefined) {
        return;
    }
    try {
        if (isWindows) {
            spawn('taskkill', ['/pid', String(pid), '/t', '/f'], { stdio: 'ignore' });
        } else {
            process.kill(-pid, 'SIGTERM');
        }
    } catch {
        // It has ended already.
    }
}
