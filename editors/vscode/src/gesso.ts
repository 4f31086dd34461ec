// The language client and its life: started, restarted, told of settings. Everything else asks it.

import * as os from 'node:os';
import * as vscode from 'vscode';
import { LanguageClient, State as ClientState } from 'vscode-languageclient/node';
import { installServer } from './install';
import { findServer } from './server';
import { type ServerStatus, StatusBar } from './status';
import { Suggestions } from './suggestions';

const ASKED = 'asked to install';

export class Gesso implements vscode.Disposable {
    readonly log = vscode.window.createOutputChannel('Gesso', { log: true });
    readonly status = new StatusBar();
    readonly suggestions = new Suggestions();
    private client: LanguageClient | undefined;
    private changing: Promise<void> = Promise.resolve();

    constructor(private readonly context: vscode.ExtensionContext) {}

    /** Starts the server, if suggestions are on and it is installed; where it is not, offers once to install it. */
    start(): Promise<void> {
        return this.inTurn(async () => {
            if (this.client !== undefined || !vscode.workspace.getConfiguration('gesso').get('enabled', true)) {
                return;
            }
            this.status.show('starting');
            const found = await findServer(this.context);
            if (found === undefined) {
                this.log.info('The server is not installed: the command Gesso: Install the Server does that.');
                this.status.show('absent');
                void this.offerToInstall();
                return;
            }
            this.log.info(`Server from ${found.origin}: ${[found.command, ...found.args].join(' ')}`);
            await this.connect(found.command, [...found.args]);
        });
    }

    stop(): Promise<void> {
        return this.inTurn(async () => {
            const client = this.client;
            this.client = this.suggestions.client = undefined;
            await client?.dispose(2000).catch((error: unknown) => this.log.warn(String(error)));
            this.status.show('stopped');
        });
    }

    async restart(): Promise<void> {
        await this.stop();
        await this.start();
    }

    async install(): Promise<void> {
        if (await installServer(this.context, this.log)) {
            await this.restart();
        }
    }

    /** A command of the server's own; undefined, and a message, where no server is there to answer. */
    async ask<T>(command: string, ...args: unknown[]): Promise<T | undefined> {
        if (!this.client?.isRunning()) {
            const start = 'Restart the Server';
            const sentence = `Gesso cannot answer now. ${this.status.sentence}`;
            void vscode.window.showWarningMessage(sentence, start).then((answer) => answer && this.restart());
            return undefined;
        }
        return this.client.sendRequest<T>('workspace/executeCommand', { command, arguments: args });
    }

    dispose(): void {
        void this.stop();
        this.status.dispose();
        this.log.dispose();
    }

    private async connect(command: string, args: string[]): Promise<void> {
        const selector = ['file', 'untitled', 'vscode-notebook-cell'].map((scheme) => ({ scheme }));
        const client = new LanguageClient(
            'gesso',
            'Gesso',
            { command, args, options: { cwd: os.homedir() } },
            {
                documentSelector: selector,
                outputChannel: this.log,
                initializationOptions: () => ({ gesso: vscode.workspace.getConfiguration('gesso') }),
                synchronize: { configurationSection: 'gesso' },
                middleware: this.suggestions.middleware,
            },
        );
        client.onNotification('didChangeStatus', (status: ServerStatus) => this.status.showServer(status));
        client.onDidChangeState(({ newState }) => {
            if (newState === ClientState.Starting) {
                this.status.show('starting');
            } else if (newState !== ClientState.Running) {
                this.status.show('stopped');
            }
        });
        this.client = this.suggestions.client = client;
        try {
            await client.start();
        } catch (error) {
            this.log.error(String(error));
            this.client = this.suggestions.client = undefined;
            this.status.show('unstartable');
        }
    }

    private async offerToInstall(): Promise<void> {
        if (this.context.globalState.get(ASKED)) {
            return;
        }
        await this.context.globalState.update(ASKED, true);
        const [install, around] = ['Install…', 'Show Me Around'];
        const sentence = 'Gesso suggests code with a model on this machine. Its server is not installed yet.';
        const answer = await vscode.window.showInformationMessage(sentence, install, around);
        if (answer === install) {
            await this.install();
        } else if (answer === around) {
            await vscode.commands.executeCommand('gesso.getStarted');
        }
    }

    /** One change at a time, in the order in which they were asked for. */
    private inTurn(change: () => Promise<void>): Promise<void> {
        const turn = this.changing.then(change);
        this.changing = turn.catch((error: unknown) => this.log.error(String(error)));
        return turn;
    }
}
