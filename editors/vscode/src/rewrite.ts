// Rewrites the selection by an instruction. The server sends the edit; VS Code shows it as a diff to accept or discard.

import * as vscode from 'vscode';
import type { Gesso } from './gesso';

interface Outcome {
    applied: boolean;
    reason: string | null;
}

export async function rewriteSelection(gesso: Gesso): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined) {
        return;
    }
    const { document, selection } = editor;
    const line = document.lineAt(selection.active.line).range;
    const range = selection.isEmpty ? line : new vscode.Range(selection.start, selection.end);
    const instruction = await vscode.window.showInputBox({
        title: 'Rewrite the Selection',
        prompt: 'What to change',
        placeHolder: 'return early when the list is empty',
    });
    if (!instruction?.trim()) {
        return;
    }
    const progress = { location: vscode.ProgressLocation.Notification, title: 'Gesso: rewriting', cancellable: true };
    const outcome = await vscode.window.withProgress(progress, async (_, token) => {
        try {
            return await gesso.executeUntil<Outcome>(token, 'gesso.edit', document.uri.toString(), range, instruction);
        } catch (error) {
            if (token.isCancellationRequested) {
                return undefined;
            }
            throw error;
        }
    });
    if (outcome && !outcome.applied && outcome.reason) {
        void vscode.window.showWarningMessage(`Gesso: ${outcome.reason}`);
    }
}
