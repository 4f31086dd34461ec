// Where the language server is: the first of four places that has it.

import * as os from 'node:os';
import * as path from 'node:path';
import * as vscode from 'vscode';
import { inEnvironment, onPath } from './processes';
import { chosenInterpreter, hasGesso } from './python';

export interface Command {
    readonly command: string;
    readonly args: readonly string[];
    /** For the log: how it was found. */
    readonly origin: string;
}

/** The folder of the environment that this extension makes when it is asked to install the server. */
export function privateEnvironment(context: vscode.ExtensionContext): string {
    return path.join(context.globalStorageUri.fsPath, 'server');
}

/** How to start the server, or undefined where it is not installed. */
export async function findServer(context: vscode.ExtensionContext): Promise<Command | undefined> {
    const given = vscode.workspace.getConfiguration('gesso').get<string[]>('server.command', []);
    if (given.length > 0) {
        const [command, ...args] = given.map(expand);
        return { command, args, origin: 'setting gesso.server.command' };
    }
    const python = await chosenInterpreter();
    if (python && (await hasGesso(python))) {
        return { command: python, args: ['-P', '-m', 'lsp'], origin: 'the chosen Python environment' };
    }
    const installed = onPath('gesso-lsp');
    if (installed) {
        return { command: installed, args: [], origin: 'PATH' };
    }
    const own = inEnvironment(privateEnvironment(context), 'python');
    if (await hasGesso(own)) {
        return { command: own, args: ['-P', '-m', 'lsp'], origin: "the extension's own environment" };
    }
    return undefined;
}

function expand(part: string): string {
    const folder = vscode.workspace.workspaceFolders?.[0]?.uri.fsPath ?? os.homedir();
    return part.replace(/^~(?=[/\\])/, os.homedir()).replaceAll('${workspaceFolder}', folder);
}
