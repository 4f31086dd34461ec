// Registers the extension's commands and the status bar's menu.

import * as vscode from 'vscode';
import type { Gesso } from './gesso';
import { type RequestRecord, showReasons } from './reasons';
import { isLanguageEnabled } from './status';

const MENU = [
    'gesso.showWhyNothing',
    'gesso.toggle',
    'gesso.toggleLanguage',
    'gesso.trigger',
    'gesso.rewrite',
    'gesso.nextEdit',
    'gesso.restartServer',
    'gesso.download',
    'gesso.install',
    'gesso.showLog',
    'gesso.getStarted',
];

export function registerCommands(context: vscode.ExtensionContext, gesso: Gesso): void {
    const copyReport = async () => {
        const report = await gesso.execute<string>('gesso.report');
        if (report !== undefined) {
            await vscode.env.clipboard.writeText(report);
            const message = 'Copied the report to the clipboard. It contains no code and no file names.';
            void vscode.window.showInformationMessage(message);
        }
    };
    const commands: Record<string, (argument?: unknown) => unknown> = {
        'gesso.menu': () => showMenu(context, gesso.status.description),
        'gesso.toggle': toggle,
        'gesso.toggleLanguage': toggleLanguage,
        'gesso.trigger': () => vscode.commands.executeCommand('editor.action.inlineSuggest.trigger'),
        'gesso.rewrite': () => gesso.rewrites.rewriteSelection(),
        'gesso.acceptRewrite': () => gesso.rewrites.accept(),
        'gesso.discardRewrite': () => gesso.rewrites.discard(),
        'gesso.acceptWord': () => gesso.suggestions.acceptPart('acceptNextWord'),
        'gesso.acceptLine': () => gesso.suggestions.acceptPart('acceptNextLine'),
        'gesso.dismissSuggestion': () => gesso.suggestions.dismiss(),
        'gesso.nextEdit': () => gesso.nextEdits.ask(),
        'gesso.takeNextEdit': (key) => gesso.nextEdits.take(key === 'tab'),
        'gesso.dropNextEdit': () => gesso.nextEdits.drop(),
        'gesso.showWhyNothing': async () => {
            const records = await gesso.execute<RequestRecord[]>('gesso.whyNothing');
            await (records && showReasons(records, copyReport));
        },
        'gesso.copyReport': copyReport,
        'gesso.restartServer': () => gesso.restart(),
        'gesso.download': () => gesso.execute('gesso.downloadModel'),
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
    const isGlobal = settings.inspect('enabled')?.workspaceValue === undefined;
    await settings.update('enabled', !settings.get('enabled', true), isGlobal);
}

async function toggleLanguage(): Promise<void> {
    const document = vscode.window.activeTextEditor?.document;
    if (document === undefined) {
        void vscode.window.showInformationMessage('Open a file of the language that you want to switch on or off.');
        return;
    }
    const settings = vscode.workspace.getConfiguration('gesso', document);
    const values = settings.inspect<Record<string, boolean>>('languages');
    const isGlobal = values?.workspaceValue === undefined;
    const languages = isGlobal ? values?.globalValue : values?.workspaceValue;
    const update = { ...languages, [document.languageId]: !isLanguageEnabled(document) };
    await settings.update('languages', update, isGlobal);
}

/** Shows the status bar's menu. The titles of its commands come from package.json. */
async function showMenu(context: vscode.ExtensionContext, status: string): Promise<void> {
    const contributed: { command: string; title: string }[] = context.extension.packageJSON.contributes.commands;
    const items = MENU.flatMap((name) => contributed.find(({ command }) => command === name) ?? []);
    const settings = { label: 'Settings', command: 'workbench.action.openSettings' };
    const choices = [...items.map(({ command, title }) => ({ label: title, command })), settings];
    const chosen = await vscode.window.showQuickPick(choices, { title: `Gesso: ${status}` });
    if (chosen !== undefined) {
        const args = chosen === settings ? [`@ext:${context.extension.id}`] : [];
        await vscode.commands.executeCommand(chosen.command, ...args);
    }
}
