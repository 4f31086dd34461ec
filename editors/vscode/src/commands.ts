// The commands of the palette, the keys and the status bar's menu.

import * as vscode from 'vscode';
import type { Gesso } from './gesso';
import { type Note, showReasons } from './reasons';
import { isOnFor } from './status';

const MENU = [
    'gesso.showWhyNothing',
    'gesso.toggle',
    'gesso.toggleLanguage',
    'gesso.trigger',
    'gesso.restartServer',
    'gesso.install',
    'gesso.showLog',
    'gesso.getStarted',
];

export function registerCommands(context: vscode.ExtensionContext, gesso: Gesso): void {
    const copyReport = async () => {
        const report = await gesso.ask<string>('gesso.report');
        if (report !== undefined) {
            await vscode.env.clipboard.writeText(report);
            const sentence = 'The report is on the clipboard. It contains no code and no file names.';
            void vscode.window.showInformationMessage(sentence);
        }
    };
    const commands: Record<string, () => unknown> = {
        'gesso.menu': () => showMenu(context, gesso.status.sentence),
        'gesso.toggle': toggle,
        'gesso.toggleLanguage': toggleLanguage,
        'gesso.trigger': () => vscode.commands.executeCommand('editor.action.inlineSuggest.trigger'),
        'gesso.acceptWord': () => gesso.suggestions.acceptPart('acceptNextWord'),
        'gesso.acceptLine': () => gesso.suggestions.acceptPart('acceptNextLine'),
        'gesso.dismissSuggestion': () => gesso.suggestions.dismiss(),
        'gesso.showWhyNothing': async () => {
            const notes = await gesso.ask<Note[]>('gesso.whyNothing');
            await (notes && showReasons(notes, copyReport));
        },
        'gesso.copyReport': copyReport,
        'gesso.restartServer': () => gesso.restart(),
        'gesso.install': () => gesso.install(),
        'gesso.showLog': () => gesso.log.show(),
        'gesso.getStarted': () =>
            vscode.commands.executeCommand('workbench.action.openWalkthrough', `${context.extension.id}#start`),
    };
    for (const [name, action] of Object.entries(commands)) {
        context.subscriptions.push(vscode.commands.registerCommand(name, action));
    }
}

async function toggle(): Promise<void> {
    const settings = vscode.workspace.getConfiguration('gesso');
    const target = settings.inspect('enabled')?.workspaceValue === undefined;
    await settings.update('enabled', !settings.get('enabled', true), target);
}

async function toggleLanguage(): Promise<void> {
    const document = vscode.window.activeTextEditor?.document;
    if (document === undefined) {
        void vscode.window.showInformationMessage('Open a file first: its language is switched on or off.');
        return;
    }
    const settings = vscode.workspace.getConfiguration('gesso', document);
    const found = settings.inspect<Record<string, boolean>>('languages');
    const isGlobal = found?.workspaceValue === undefined;
    const given = isGlobal ? found?.globalValue : found?.workspaceValue;
    await settings.update('languages', { ...given, [document.languageId]: !isOnFor(document) }, isGlobal);
}

/** The status bar's menu: commands with the titles that package.json gives them. */
async function showMenu(context: vscode.ExtensionContext, sentence: string): Promise<void> {
    const contributed: { command: string; title: string }[] = context.extension.packageJSON.contributes.commands;
    const items = MENU.flatMap((name) => contributed.find(({ command }) => command === name) ?? []);
    const settings = { label: 'Settings', command: 'workbench.action.openSettings' };
    const choices = [...items.map(({ command, title }) => ({ label: title, command })), settings];
    const chosen = await vscode.window.showQuickPick(choices, { title: `Gesso: ${sentence}` });
    if (chosen !== undefined) {
        const args = chosen === settings ? [`@ext:${context.extension.id}`] : [];
        await vscode.commands.executeCommand(chosen.command, ...args);
    }
}
