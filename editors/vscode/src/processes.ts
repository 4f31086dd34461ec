// Runs short programs and reads their output. Must not know VS Code.

import { spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';

export interface ProcessResult {
    code: number | null;
    output: string;
}

/** The full path of a program on PATH, or undefined. */
export function onPath(name: string): string | undefined {
    const folders = (process.env.PATH ?? '').split(path.delimiter).filter(path.isAbsolute);
    return folders.map((folder) => path.join(folder, name)).find(isExecutable);
}

function isExecutable(file: string): boolean {
    try {
        fs.accessSync(file, fs.constants.X_OK);
        return fs.statSync(file).isFile();
    } catch {
        return false;
    }
}

/**
 * Runs a program to its end. `onLine` receives each line of its output, from either stream. `signal` terminates the
 * program and its children. If the program cannot be started, the code is null and the output is the reason.
 */
export function run(
    command: string,
    args: readonly string[],
    options: { signal?: AbortSignal; onLine?: (line: string) => void } = {},
): Promise<ProcessResult> {
    return new Promise((resolve) => {
        // Python imports modules of the working folder, which may be a stranger's project.
        const cwd = os.homedir();
        const child = spawn(command, args, { cwd, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
        const stop = () => terminateGroup(child.pid);
        let output = '';
        let partialLine = '';
        const read = (chunk: Buffer) => {
            const text = chunk.toString();
            output += text;
            const lines = (partialLine + text).split(/\r?\n|\r/);
            partialLine = lines.pop() ?? '';
            lines.filter((line) => line.trim()).forEach((line) => options.onLine?.(line));
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

function terminateGroup(pid: number | undefined): void {
    try {
        if (pid !== undefined) {
            process.kill(-pid, 'SIGTERM');
        }
    } catch {
        // The process has already exited.
    }
}
