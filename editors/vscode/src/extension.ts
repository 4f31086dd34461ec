// Entry point: makes the parts and starts the server.

import * as vscode from 'vscode';
import { registerCommands } from './commands';
import { Gesso } from './gesso';
import { registerPage } from './reasons';

let gesso: Gesso | undefined;

export async function activate(context: vscode.ExtensionContext): Promise<void> {
    const created = new Gesso(context);
    gesso = created;
    context.subscriptions.push(
        created,
        registerPage(),
        vscode.workspace.onDidGrantWorkspaceTrust(() => created.start()),
        vscode.workspace.onDidChangeConfiguration(async (change) => {
            if (change.affectsConfiguration('gesso.server')) {
                await created.restart();
            } else if (change.affectsConfiguration('gesso.enabled')) {
                await created.start();
            }
        }),
    );
    registerCommands(context, created);
    await created.start();
}

export async function deactivate(): Promise<void> {
    await gesso?.stop();
}
