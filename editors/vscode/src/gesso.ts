// Owns the language client: starts, stops and restarts it, and sends the server's commands.

import * as os from 'node:os';
import * as vscode from 'vscode';
import { LanguageClient, State as ClientState } from 'vscode-languageclient/node';
import { CursorReports } from './cursor';
import { installServer } from './install';
import { NextEdits } from './nextEdit';
import { Rewrites } from './rewrite';
import { findServer } from './server';
import { type ServerStatus, StatusBar } from './status';
import { Suggestions } from './suggestions';

const INSTALL_OFFERED = 'asked to install';

export class Gesso implements vscode.Disposable {
    readonly log = vscode.window.createOutputChannel('Gesso', { log: true });
    readonly status = new StatusBar();
    readonly suggestions = new Suggestions();
    readonly nextEdits = new NextEdits();
    readonly rewrites = new Rewrites(this);
    private readonly cursor = new CursorReports();
    private client: LanguageClient | undefined;
    private lastTask: Promise<void> = Promise.resolve();

    constructor(private readonly context: vscode.ExtensionContext) {}

    /** Starts the server if suggestions are enabled. If the server is not installed, offers once to install it. */
    start(): Promise<void> {
        return this.enqueue(async () => {
            if (this.client !== undefined || !vscode.workspace.getConfiguration('gesso').get('enabled', true)) {
                return;
            }
            this.status.show('starting');
            const server = await findServer(this.context);
            if (server === undefined) {
                this.log.info('The server is not installed; run the command "Gesso: Install the Server".');
                this.status.show('notInstalled');
                void this.offerToInstall();
                return;
            }
            this.log.info(`Server from ${server.origin}: ${[server.command, ...server.args].join(' ')}`);
            await this.connect(server.command, [...server.args]);
        });
    }

    stop(): Promise<void> {
        return this.enqueue(async () => {
            const client = this.client;
            this.setClient(undefined);
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

    /** Runs one of the server's commands. Shows a message and returns undefined if no server is running. */
    async execute<T>(command: string, ...args: unknown[]): Promise<T | undefined> {
        return this.executeUntil<T>(undefined, command, ...args);
    }

    /** The same; cancelling `token` cancels the command. */
    async executeUntil<T>(
        token: vscode.CancellationToken | undefined,
        command: string,
        ...args: unknown[]
    ): Promise<T | undefined> {
        if (!this.client?.isRunning()) {
            const restart = 'Restart the Server';
            const message = `Gesso cannot do this now. ${this.status.description}`;
            void vscode.window.showWarningMessage(message, restart).then((choice) => choice && this.restart());
            return undefined;
        }
        const parameters = { command, arguments: args };
        return token === undefined // an undefined token would become a second parameter
            ? this.client.sendRequest<T>('workspace/executeCommand', parameters)
            : this.client.sendRequest<T>('workspace/executeCommand', parameters, token);
    }

    dispose(): void {
        void this.stop();
        this.cursor.dispose();
        this.nextEdits.dispose();
        this.rewrites.dispose();
        this.status.dispose();
        this.log.dispose();
    }

    private setClient(client: LanguageClient | undefined): void {
        this.client = this.suggestions.client = this.cursor.client = client;
        this.nextEdits.client = this.rewrites.client = client;
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
                initializationOptions: () => ({
                    gesso: vscode.workspace.getConfiguration('gesso'),
                    workspaceTrusted: vscode.workspace.isTrusted,
                    extendsSuggestions: true,
                }),
                synchronize: { configurationSection: 'gesso' },
                middleware: this.suggestions.middleware,
            },
        );
        client.onNotification('didChangeStatus', (status: ServerStatus) => this.status.showServer(status));
        client.onNotification('gesso/suggestionExtended', ({ uri }: { uri: string }) => this.suggestions.extended(uri));
        client.onDidChangeState(({ newState }) => {
            if (newState === ClientState.Starting) {
                this.status.show('starting');
            } else if (newState !== ClientState.Running) {
                this.status.show('stopped');
            }
        });
        this.setClient(client);
        try {
            await client.start();
            this.cursor.moved();
        } catch (error) {
            this.log.error(String(error));
            this.setClient(undefined);
            this.status.show('startFailed');
        }
    }

    private async offerToInstall(): Promise<void> {
        if (this.context.globalState.get(INSTALL_OFFERED)) {
            return;
        }
        await this.context.globalState.update(INSTALL_OFFERED, true);
        const [install, getStarted] = ['Install…', 'Get Started'];
        const message = 'Gesso suggests code with a model on this machine. Its server is not installed yet.';
        const choice = await vscode.window.showInformationMessage(message, install, getStarted);
        if (choice === install) {
            await this.install();
        } else if (choice === getStarted) {
            await vscode.commands.executeCommand('gesso.getStarted');
        }
    }

    /** Runs tasks one at a time, in the order of the calls. */
    private enqueue(run: () => Promise<void>): Promise<void> {
        const task = this.lastTask.then(run);
        this.lastTask = task.catch((error: unknown) => this.log.error(String(error)));
        return task;
    }
}
