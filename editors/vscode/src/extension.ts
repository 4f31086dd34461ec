// The entry point: creates the extension's parts and starts the server.

import * as vscode from 'vscode';
import { registerCommands } from './commands';
import { Gesso } from './gesso';
import { registerReasonsDocument } from './reasons';

let gesso: Gesso | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
    const current = new Gesso(context);
    gesso = current;
    context.subscriptions.push(
        current,
        registerReasonsDocument(),
        vscode.workspace.onDidGrantWorkspaceTrust(() => current.restart()),
        vscode.workspace.onDidChangeConfiguration(async (change) => {
            if (change.affectsConfiguration('gesso.server')) {
                await current.restart();
            } else if (change.affectsConfiguration('gesso.enabled')) {
                await current.start();
            }
        }),
    );
    registerCommands(context, current);
    await current.start();
}

export async function deactivate(): Promise<void> {
    await gesso?.stop();
}
