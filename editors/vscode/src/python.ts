// Finds Python interpreters: that of Microsoft's Python extension, and those on PATH.

import * as vscode from 'vscode';
import { onPath, run } from './processes';

const OLDEST = [3, 11] as const;
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
 * The interpreter that is chosen in Microsoft's Python extension, if that is installed. A folder that is not trusted
 * may choose a program of its own, so there it is not asked.
 */
export async function chosenInterpreter(): Promise<string | undefined> {
    const extension = vscode.extensions.getExtension<PythonExtension>('ms-python.python');
    if (!vscode.workspace.isTrusted || extension === undefined) {
        return undefined;
    }
    try {
        const { environments } = await extension.activate();
        const chosen = environments?.getActiveEnvironmentPath(vscode.workspace.workspaceFolders?.[0]?.uri);
        return chosen && (await environments?.resolveEnvironment(chosen))?.executable.uri?.fsPath;
    } catch {
        return undefined;
    }
}

/** Whether Gesso can be imported there. -P keeps Python from importing what lies in the current folder. */
export async function hasGesso(python: string): Promise<boolean> {
    const question = 'from importlib.metadata import version as v; print(v("gesso"), v("pygls"))';
    return (await run(python, ['-P', '-c', question])).code === 0;
}

/** Why Gesso cannot be installed with this interpreter, or undefined where it can. */
async function unfit(python: string): Promise<string | undefined> {
    const question = 'import sys, venv, ensurepip; print(*sys.version_info[:2])';
    const { code, output } = await run(python, ['-c', question]);
    if (code !== 0) {
        return output.includes('ensurepip') || output.includes('venv')
            ? `${python} has no venv; on Debian and Ubuntu install the package python3-venv`
            : `${python} does not start`;
    }
    const [major, minor] = output.trim().split(' ').map(Number);
    const isNew = major === OLDEST[0] && minor >= OLDEST[1];
    return isNew ? undefined : `${python} is Python ${major}.${minor}`;
}

/** The first interpreter with which an environment can be made, or the sentence that says why there is none. */
export async function findPython(): Promise<{ python: string } | { problem: string }> {
    const reasons: string[] = [];
    const candidates = [await chosenInterpreter(), ...NAMES.map(onPath)];
    for (const python of new Set(candidates)) {
        const reason = python && (await unfit(python));
        if (python && reason === undefined) {
            return { python };
        }
        if (reason) {
            reasons.push(reason);
        }
    }
    const found = reasons.length > 0 ? `What was found: ${reasons.join('; ')}.` : 'None was found on PATH.';
    return { problem: `Gesso needs Python ${OLDEST.join('.')} or newer. ${found}` };
}
