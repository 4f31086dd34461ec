// Reports to the server where the cursor rests, so that the model can read the text there before the user types.
//
// VS Code requests code actions as the cursor moves, but not if only white space is around it.

import * as vscode from 'vscode';
import type { LanguageClient } from 'vscode-languageclient/node';

const REST_MS = 300;

export class CursorReports implements vscode.Disposable {
    client: LanguageClient | undefined;
    private timer: NodeJS.Timeout | undefined;
    private readonly subscriptions = [
        vscode.window.onDidChangeTextEditorSelection(() => this.moved()),
        vscode.window.onDidChangeActiveTextEditor(() => this.moved()),
    ];

    /** Reports the cursor of the active editor once it has rested. */
    moved(): void {
        clearTimeout(this.timer);
        this.timer = setTimeout(() => this.report(), REST_MS);
    }

    dispose(): void {
        clearTimeout(this.timer);
        this.subscriptions.forEach((one) => one.dispose());
    }

    private report(): void {
        const [editor, client] = [vscode.window.activeTextEditor, this.client];
        if (editor !== undefined && client?.isRunning()) {
            const { document, selection } = editor;
            const params = client.code2ProtocolConverter.asTextDocumentPositionParams(document, selection.active);
            void client.sendNotification('gesso/cursorRested', params);
        }
    }
}
