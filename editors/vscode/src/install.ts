// Installs the server into the extension's own Python environment, after the user has agreed.

import * as fs from 'node:fs/promises';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { onPath, type ProcessResult, run } from './processes';
import { findPython, hasGesso } from './python';
import { environmentPython, privateEnvironment } from './server';

const CPU_INDEX = 'https://download.pytorch.org/whl/cpu';
const TORCH = 'torch>=2.11,<2.14'; // as in pyproject.toml

/** Asks the user, installs, and returns whether the server is installed. The output of pip goes to the log. */
export async function installServer(context: vscode.ExtensionContext, log: vscode.LogOutputChannel): Promise<boolean> {
    const found = await findPython();
    if ('problem' in found) {
        await showNoPython(found.problem);
        return false;
    }
    const wheel = await bundledWheel(context);
    if (wheel === undefined) {
        await showFailure('this build of the extension has no server; `npm run package` makes one that does.', log);
        return false;
    }
    const folder = privateEnvironment(context);
    if (!(await confirm(found.python, folder))) {
        return false;
    }
    const problem = await vscode.window.withProgress(
        { location: vscode.ProgressLocation.Notification, title: 'Gesso', cancellable: true },
        async (progress, token) => {
            const controller = new AbortController();
            token.onCancellationRequested(() => controller.abort());
            const onLine = (line: string) => {
                log.info(line);
                progress.report({ message: line.slice(0, 80) });
            };
            return install(found.python, folder, wheel, { signal: controller.signal, onLine });
        },
    );
    if (problem) {
        await showFailure(`${problem} Check the network, then run "Gesso: Install the Server" again.`, log);
    }
    return problem === undefined;
}

interface RunOptions {
    readonly signal: AbortSignal;
    readonly onLine: (line: string) => void;
}

/** Undefined on success, otherwise the reason, or '' if the user cancelled. After a failure the folder is removed. */
async function install(
    python: string,
    folder: string,
    wheel: string,
    options: RunOptions,
): Promise<string | undefined> {
    await fs.rm(folder, { recursive: true, force: true });
    await fs.mkdir(path.dirname(folder), { recursive: true });
    const privatePython = environmentPython(folder);
    let result = await run(python, ['-m', 'venv', folder], options);
    const canContinue = () => result.code === 0 && !options.signal.aborted;
    if (canContinue() && needsCpuTorch()) {
        // If that index cannot be reached, the next step installs torch from PyPI.
        await run(privatePython, pip('--index-url', CPU_INDEX, '--timeout', '15', '--retries', '1', TORCH), options);
    }
    if (canContinue()) {
        result = await run(privatePython, pip(wheel), options);
    }
    if (canContinue() && (await hasGesso(privatePython))) {
        return undefined;
    }
    await fs.rm(folder, { recursive: true, force: true });
    return options.signal.aborted ? '' : lastLine(result);
}

/** On Linux without an NVIDIA GPU, the CPU build of PyTorch avoids gigabytes of CUDA libraries. */
function needsCpuTorch(): boolean {
    return process.platform === 'linux' && onPath('nvidia-smi') === undefined;
}

function pip(...args: string[]): string[] {
    return ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', ...args];
}

/** The wheel in this extension, which has the matching version of Gesso. */
async function bundledWheel(context: vscode.ExtensionContext): Promise<string | undefined> {
    const folder = context.asAbsolutePath('wheel');
    const names = await fs.readdir(folder).catch(() => []);
    const wheel = names.find((name) => name.endsWith('.whl'));
    return wheel && path.join(folder, wheel);
}

async function confirm(python: string, folder: string): Promise<boolean> {
    const detail =
        `${python} will create a Python environment in ${folder}. pip will install Gesso there, from the wheel in ` +
        'this extension, and download the packages that Gesso needs, above all PyTorch, from PyPI and pytorch.org: ' +
        'several hundred MB on a machine without an NVIDIA GPU, several GB with one.\n\n' +
        'Nothing else on this machine changes, and your code is not sent anywhere.';
    const question = 'Install the Gesso server?';
    return (await vscode.window.showInformationMessage(question, { modal: true, detail }, 'Install')) === 'Install';
}

async function showNoPython(problem: string): Promise<void> {
    const getPython = 'Get Python';
    const openSetting = 'Set the Server Command';
    const choice = await vscode.window.showErrorMessage(problem, getPython, openSetting);
    if (choice === getPython) {
        await vscode.env.openExternal(vscode.Uri.parse('https://www.python.org/downloads/'));
    } else if (choice === openSetting) {
        await vscode.commands.executeCommand('workbench.action.openSettings', 'gesso.server.command');
    }
}

async function showFailure(problem: string, log: vscode.LogOutputChannel): Promise<void> {
    const showLog = 'Show Log';
    if ((await vscode.window.showErrorMessage(`Gesso was not installed: ${problem}`, showLog)) === showLog) {
        log.show();
    }
}

function lastLine(result: ProcessResult): string {
    const lines = result.output.trim().split('\n');
    return lines.findLast((line) => line.startsWith('ERROR')) ?? (lines.at(-1) || 'pip failed without a message.');
}
