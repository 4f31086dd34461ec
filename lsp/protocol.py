"""The protocol layer over pygls: answers unreadable requests, and leaves documents to our own store.

pygls structures a message while it parses the JSON, does not answer a request that it cannot structure, shows every
error to the user as a popup, and keeps a document store that splits lines like `str.splitlines`. This layer replaces
all four. Must not know what a request means.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

from cattrs.errors import ClassValidationError
from lsprotocol import types
from pygls.exceptions import (
    JsonRpcException,
    JsonRpcInvalidParams,
    JsonRpcInvalidRequest,
    JsonRpcParseError,
    JsonRpcServerNotInitialized,
)
from pygls.protocol import LanguageServerProtocol, lsp_method

from engine.errors import describe_error
from infill.printable import one_line

logger = logging.getLogger(__name__)
TEXT_CHANGES = (types.TEXT_DOCUMENT_DID_OPEN, types.TEXT_DOCUMENT_DID_CHANGE)


class ServerCancelled(JsonRpcException):
    """The response to a superseded request for diagnostics. It is not an error, so nothing is logged.

    retrigger: whether the client should ask again (LSP 3.17, DiagnosticServerCancellationData).
    """

    CODE = types.LSPErrorCodes.ServerCancelled.value
    MESSAGE = "Server Cancelled"

    def __init__(self, retrigger: bool) -> None:
        super().__init__(data={"retriggerRequest": retrigger})


class MessageProtocol(LanguageServerProtocol):
    """Structures whole messages after parsing them; passes document notifications to our handlers only."""

    _initialized = False
    on_unreadable: Callable[[Any], None] = staticmethod(lambda message: None)

    def structure_message(self, data: Any) -> Any:
        """Called by pygls for every JSON object of a message; `handle_message` structures the outermost."""
        return data

    def handle_message(self, message: Any) -> None:
        """Structures and delivers one message. Answers an unreadable request with -32602 or -32600, and passes every
        message that is not understood to `on_unreadable`."""
        if not self._deliver(message):
            self.on_unreadable(message)

    def refuse_text(self) -> None:
        """Answers a message that is not JSON with -32700."""
        error = {"code": JsonRpcParseError.CODE, "message": JsonRpcParseError.MESSAGE}
        self._send_data({"jsonrpc": self.VERSION, "id": None, "error": error})

    def _deliver(self, message: Any) -> bool:
        """Returns False for a message that is not understood."""
        if not isinstance(message, dict) or message.get("jsonrpc") != self.VERSION:
            logger.warning("Ignoring a message that is not JSON-RPC 2.0.")
            self._refuse(message.get("id") if isinstance(message, dict) else None, JsonRpcInvalidRequest())
            return False
        identifier, method = message.get("id"), message.get("method")
        if "id" in message and (isinstance(identifier, bool) or not isinstance(identifier, (int, str))):
            logger.warning("Ignoring a message whose id is neither a number nor a string.")
            self._refuse(None, JsonRpcInvalidRequest())
            return False
        if method is None and "id" not in message:
            logger.warning("Ignoring a message without a method and without an id.")
            return False
        if method is not None and not isinstance(method, str):
            logger.warning("Ignoring a message whose method is not a string.")
            self._refuse(identifier, JsonRpcInvalidRequest())
            return False
        if self._is_out_of_order(method):
            if "id" in message:
                self._refuse(
                    identifier, JsonRpcInvalidRequest() if self._initialized else JsonRpcServerNotInitialized()
                )
            return False
        if method == types.SHUTDOWN or method == types.EXIT:
            message = {key: value for key, value in message.items() if key != "params"}
        elif method is not None and self.get_message_type(method) is None:
            message = {"params": None, **message}
        params = message.get("params")
        if method == types.WORKSPACE_EXECUTE_COMMAND and isinstance(params, dict) and params.get("arguments") is None:
            message = {**message, "params": {**params, "arguments": []}}  # without, pygls does not count them
        if method in TEXT_CHANGES and not _has_texts(message.get("params")):
            logger.warning("The parameters of %s cannot be read: a text is not a string.", one_line(method))
            return False
        try:
            structured = super().structure_message(message)
        except Exception as error:  # noqa: BLE001 - cattrs raises many kinds
            if method is None:
                logger.warning("Ignoring an unreadable response.")
                self._request_futures.pop(str(identifier), None)
                return True
            logger.warning("The parameters of %s cannot be read: %s", one_line(method), _first_reason(error))
            if "id" in message:
                self._refuse(identifier, JsonRpcInvalidParams(f"The parameters of {method} cannot be read."))
            return False
        super().handle_message(structured)
        return "id" in message or method in self.fm.features or method in self.fm.builtin_features

    def _is_out_of_order(self, method: str | None) -> bool:
        """Whether to ignore this method: `initialize` must come first and once; only `exit` may come before."""
        if method == types.INITIALIZE:
            again, self._initialized = self._initialized, True
            return again
        return method not in (None, types.EXIT) and not self._initialized

    def _refuse(self, identifier: Any, error: Any) -> None:
        if isinstance(identifier, (int, str)) and not isinstance(identifier, bool):
            self._send_response(identifier, None, error.to_response_error())

    def _send_handler_result(self, future: Future[Any], *, msg_id: Any) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, ServerCancelled):
            self._request_futures.pop(msg_id, None)
            self._send_response(msg_id, error=error.to_response_error())
        else:
            super()._send_handler_result(future, msg_id=msg_id)

    def _call_ours(self, method: str, params: Any) -> Generator[Any, Any, None]:
        if (handler := self.fm.features.get(method)) is not None:
            yield handler, (params,), None

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> Generator[Any, Any, None]:
        yield from self._call_ours(types.TEXT_DOCUMENT_DID_OPEN, params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> Generator[Any, Any, None]:
        yield from self._call_ours(types.TEXT_DOCUMENT_DID_CHANGE, params)

    @lsp_method(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    def lsp_workspace__did_change_workspace_folders(
        self, params: types.DidChangeWorkspaceFoldersParams
    ) -> Generator[Any, Any, None]:
        yield from self._call_ours(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS, params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> Generator[Any, Any, None]:
        yield from self._call_ours(types.TEXT_DOCUMENT_DID_CLOSE, params)


def _has_texts(params: Any) -> bool:
    """Whether the texts of an opened or changed document are strings; cattrs would convert other values to strings."""
    if not isinstance(params, dict):
        return False
    texts = params["contentChanges"] if "contentChanges" in params else [params.get("textDocument")]
    return isinstance(texts, list) and all(isinstance(one, dict) and isinstance(one.get("text"), str) for one in texts)


def _first_reason(error: BaseException) -> str:
    """The first innermost error of a group, in one line."""
    while isinstance(error, ClassValidationError) and error.exceptions:
        error = error.exceptions[0]
    return one_line(describe_error(error))
