// Finds Python interpreters: the one selected in Microsoft's Python extension, and those on PATH.

import * as vscode from 'vscode';
import { onPath, run } from './processes';

const MINIMUM_VERSION = [3, 11] as const;
const NAMES = ['python3.13', 'python3.12', 'python3.14', 'python3.11', 'python3', 'python'];

interface PythonExtension {
    readonly environments?: {
        getActiveEnvironmentPath(resource?: vscode.Uri): { readonly path: string };
        resolveEnvironment(environment: {
            readonly path: string;
        }): Promise<{ readonly executable: { readonly uri?: vscode.Uri } } | undefined>;
    };
}

/**
 * The interpreter selected in Microsoft's Python extension, if that is installed. Undefined in an untrusted folder,
 * because the folder itself may have selected the program.
 */
export async function selectedInterpreter(): Promise<string | undefined> {
    const extension = vscode.extensions.getExtension<PythonExtension>('ms-python.python');
    if (!vscode.workspace.isTrusted || extension === undefined) {
        return undefined;
    }
    try {
        const { environments } = await extension.activate();
        const selected = environments?.getActiveEnvironmentPath(vscode.workspace.workspaceFolders?.[0]?.uri);
        return selected && (await environments?.resolveEnvironment(selected))?.executable.uri?.fsPath;
    } catch {
        return undefined;
    }
}

/** Whether Gesso is installed for this interpreter. -P keeps Python from importing modules of the current folder. */
export async function hasGesso(python: string): Promise<boolean> {
    const script = 'from importlib.metadata import version as v; print(v("gesso"), v("pygls")); import gesso_launcher';
    return (await run(python, ['-P', '-c', script])).code === 0;
}

/** Why Gesso cannot be installed with this interpreter; undefined if it can. */
async function incompatibility(python: string): Promise<string | undefined> {
    const script = 'import sys, venv, ensurepip; print(*sys.version_info[:2])';
    const { code, output } = await run(python, ['-c', script]);
    if (code !== 0) {
        return output.includes('ensurepip') || output.includes('venv')
            ? `${python} lacks the venv module; on Debian and Ubuntu install the package python3-venv`
            : `${python} does not start`;
    }
    const [major, minor] = output.trim().split(' ').map(Number);
    const isRecent = major === MINIMUM_VERSION[0] && minor >= MINIMUM_VERSION[1];
    return isRecent ? undefined : `${python} is Python ${major}.${minor}`;
}

/** The first interpreter that can create an environment for Gesso, or a sentence that says why there is none. */
export async function findPython(): Promise<{ python: string } | { problem: string }> {
    if (process.platform === 'win32') {
        return { problem: 'Gesso runs on Linux and macOS; on Windows, use VS Code with WSL.' };
    }
    const reasons: string[] = [];
    const candidates = [await selectedInterpreter(), ...NAMES.map(onPath)];
    for (const python of new Set(candidates)) {
        const reason = python && (await incompatibility(python));
        if (python && reason === undefined) {
            return { python };
        }
        if (reason) {
            reasons.push(reason);
        }
    }
    const found = reasons.length > 0 ? `Found only: ${reasons.join('; ')}.` : 'No Python was found on PATH.';
    return { problem: `Gesso needs Python ${MINIMUM_VERSION.join('.')} or newer. ${found}` };
}
