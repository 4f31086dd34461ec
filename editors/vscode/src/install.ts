// Installs the server into an environment of the extension's own, after the user has agreed to what will happen.

import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { type Ended, inEnvironment, onPath, run } from './processes';
import { findPython, hasGesso } from './python';
import { privateEnvironment } from './server';

const CPU_BUILDS = 'https://download.pytorch.org/whl/cpu';
const TORCH = 'torch>=2.11,<2.14'; // as in pyproject.toml

/** Asks, installs, and answers whether the server is there now. The log gets what pip prints. */
export async function installServer(context: vscode.ExtensionContext, log: vscode.LogOutputChannel): Promise<boolean> {
    const found = await findPython();
    if ('problem' in found) {
        await tellNoPython(found.problem);
        return false;
    }
    const wheel = await packagedWheel(context);
    if (wheel === undefined) {
        await tellFailed('this build of the extension carries no server (`npm run package` makes one that does).', log);
        return false;
    }
    const folder = privateEnvironment(context);
    if (!(await agreed(found.python, folder))) {
        return false;
    }
    const problem = await vscode.window.withProgress(
        { location: vscode.ProgressLocation.Notification, title: 'Gesso', cancellable: true },
        async (progress, token) => {
            const stop = new AbortController();
            token.onCancellationRequested(() => stop.abort());
            const onLine = (line: string) => {
                log.info(line);
                progress.report({ message: line.slice(0, 80) });
            };
            return install(found.python, folder, wheel, { signal: stop.signal, onLine });
        },
    );
    if (problem) {
        await tellFailed(`${problem} Check the network, then run "Gesso: Install the Server" again.`, log);
    }
    return problem === undefined;
}

interface Watch {
    readonly signal: AbortSignal;
    readonly onLine: (line: string) => void;
}

/** Undefined when all went well; otherwise the reason ('' where the user stopped it), and nothing is left behind. */
async function install(python: string, folder: string, wheel: string, watch: Watch): Promise<string | undefined> {
    await fs.rm(folder, { recursive: true, force: true });
    await fs.mkdir(path.dirname(folder), { recursive: true });
    const own = inEnvironment(folder, 'python');
    let ended = await run(python, ['-m', 'venv', folder], watch);
    if (ended.code === 0 && !watch.signal.aborted && wantsCpuBuild()) {
        // where that index cannot be reached, the next step takes what PyPI has
        await run(own, pip('--index-url', CPU_BUILDS, '--timeout', '15', '--retries', '1', TORCH), watch);
    }
    if (ended.code === 0 && !watch.signal.aborted) {
        ended = await run(own, pip(wheel), watch);
    }
    if (ended.code === 0 && !watch.signal.aborted && (await hasGesso(own))) {
        return undefined;
    }
    await fs.rm(folder, { recursive: true, force: true });
    return watch.signal.aborted ? '' : lastLine(ended);
}

/** On Linux without an NVIDIA GPU PyTorch's builds for the CPU spare gigabytes of CUDA. */
function wantsCpuBuild(): boolean {
    return process.platform === 'linux' && onPath('nvidia-smi') === undefined;
}

function pip(...what: string[]): string[] {
    return ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', ...what];
}

/** The wheel of Gesso in this extension: the version that fits, and not whatever goes by that name elsewhere. */
async function packagedWheel(context: vscode.ExtensionContext): Promise<string | undefined> {
    const folder = context.asAbsolutePath('wheel');
    const names = await fs.readdir(folder).catch(() => []);
    const wheel = names.find((name) => name.endsWith('.whl'));
    return wheel && path.join(folder, wheel);
}

async function agreed(python: string, folder: string): Promise<boolean> {
    const answer = await vscode.window.showInformationMessage(
        'Install the Gesso server?',
        {
            modal: true,
            detail:
                `With ${python} a Python environment is made in ${folder}. pip then installs Gesso there, which this ` +
                'extension carries, and the packages it needs, above all PyTorch, from PyPI and pytorch.org: some ' +
                'hundred MB to download on a machine without an NVIDIA GPU, some gigabytes with one.\n\nNothing else ' +
                'on this machine is changed, and nothing you write is sent anywhere.',
        },
        'Install',
    );
    return answer === 'Install';
}

async function tellNoPython(problem: string): Promise<void> {
    const get = 'Get Python';
    const setting = 'Name the Server Myself';
    const answer = await vscode.window.showErrorMessage(problem, get, setting);
    if (answer === get) {
        await vscode.env.openExternal(vscode.Uri.parse('https://www.python.org/downloads/'));
    } else if (answer === setting) {
        await vscode.commands.executeCommand('workbench.action.openSettings', 'gesso.server.command');
    }
}

async function tellFailed(problem: string, log: vscode.LogOutputChannel): Promise<void> {
    const show = 'Show Log';
    if ((await vscode.window.showErrorMessage(`Gesso was not installed: ${problem}`, show)) === show) {
        log.show();
    }
}

function lastLine(ended: Ended): string {
    const lines = ended.output.trim().split(/\r?\n/);
    return lines.findLast((line) => line.startsWith('ERROR')) ?? lines.at(-1) ?? 'pip ended without a word.';
}
