// Finds the language server.

import * as os from 'node:os';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { onPath } from './processes';
import { hasGesso, selectedInterpreter } from './python';

// The launcher keeps modules of the user's PYTHONPATH from replacing Gesso's.
const PYTHON_ARGS = ['-P', '-c', 'import gesso_launcher; gesso_launcher.language_server()'];

export interface ServerCommand {
    readonly command: string;
    readonly args: readonly string[];
    /** How the command was found, for the log. */
    readonly origin: string;
}

/** The folder of the Python environment into which this extension installs the server. */
export function privateEnvironment(context: vscode.ExtensionContext): string {
    return path.join(context.globalStorageUri.fsPath, 'server');
}

/** The interpreter of a Python environment. */
export function environmentPython(environment: string): string {
    return path.join(environment, 'bin', 'python');
}

/**
 * How to start the server: from the setting, the selected interpreter, PATH or the private environment, in this order.
 * Undefined if it is not installed.
 */
export async function findServer(context: vscode.ExtensionContext): Promise<ServerCommand | undefined> {
    const setting = vscode.workspace.getConfiguration('gesso').get<string[]>('server.command', []);
    if (setting.length > 0) {
        const [command, ...args] = setting.map(expand);
        return { command, args, origin: 'setting gesso.server.command' };
    }
    const python = await selectedInterpreter();
    if (python && (await hasGesso(python))) {
        return { command: python, args: PYTHON_ARGS, origin: 'the selected Python environment' };
    }
    const installed = onPath('gesso-lsp');
    if (installed) {
        return { command: installed, args: [], origin: 'PATH' };
    }
    const privatePython = environmentPython(privateEnvironment(context));
    if (await hasGesso(privatePython)) {
        return { command: privatePython, args: PYTHON_ARGS, origin: "the extension's own environment" };
    }
    return undefined;
}

function expand(part: string): string {
    const folder = vscode.workspace.workspaceFolders?.[0]?.uri.fsPath ?? os.homedir();
    return part.replace(/^~(?=\/)/, os.homedir()).replaceAll('${workspaceFolder}', folder);
}
