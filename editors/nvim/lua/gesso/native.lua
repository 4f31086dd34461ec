--- Neovim 0.12's inline completion requests and draws suggestions. This module corrects what it gets wrong: removes
--- ghost text that typing has contradicted, drops late answers, and keeps cancelled requests out of the log. Uses
--- public functions only.
local server = require("gesso.server")
local suggestion = require("gesso.suggestion")

local M = {}

local AUTOMATIC = 2 -- LSP: InlineCompletionTriggerKind
local CANCELLED = { -32800, -32801, -32802 } -- LSP: RequestCancelled, ContentModified, ServerCancelled

---@class gesso.Native
---@field client_id integer
---@field suggestion gesso.Suggestion|nil  the one that Neovim shows
---@field last_request integer  number of the last request
---@field handler function|nil  Neovim's, of the last request
---@field events integer  augroup
local states = {} ---@type table<integer, gesso.Native>

local on_shown = function(_, _) end

---@return boolean
function M.is_available()
  return vim.lsp.inline_completion ~= nil
end

---@param shown fun(client: table, item: table)
function M.setup(shown)
  on_shown = shown
end

local function namespace()
  return vim.api.nvim_create_namespace("nvim.lsp.inline_completion")
end

local function is_drawn(bufnr)
  return #vim.api.nvim_buf_get_extmarks(bufnr, namespace(), 0, -1, { limit = 1 }) > 0
end

--- The visible suggestion, if it still fits the buffer.
---@return gesso.Suggestion|nil
function M.current(bufnr)
  local state = states[bufnr]
  local current = state and state.suggestion
  return current and current:rest() and is_drawn(bufnr) and current or nil
end

local function filtered(handler, state, client, bufnr)
  state.last_request = state.last_request + 1
  local number, position = state.last_request, suggestion.cursor()
  return function(err, result, context)
    if states[bufnr] ~= state or number ~= state.last_request then
      return
    end
    if err then
      if not vim.list_contains(CANCELLED, err.code) then
        handler(err, result, context)
      end
      return
    end
    if vim.api.nvim_get_current_buf() ~= bufnr then
      return
    end
    local suggestions = suggestion.from_result(position, result, client.offset_encoding)
    state.suggestion = suggestions[1]
    local items = vim.tbl_map(function(one)
      return one.item
    end, suggestions)
    handler(nil, { items = items }, context)
    if M.current(bufnr) then
      on_shown(client, state.suggestion.item)
    end
  end
end

--- Wraps the client's `request` to filter the answers to Neovim's requests.
local function intercept(client)
  local request = client.request
  client.request = function(self, method, params, handler, bufnr)
    local state = method == server.METHOD and handler and states[bufnr]
    if state then
      state.handler = handler
      handler = filtered(handler, state, client, bufnr)
    end
    return request(self, method, params, handler, bufnr)
  end
end

--- Removes ghost text that no longer fits; Neovim would keep it until the next answer.
local function remove_contradicted(bufnr)
  local events = vim.api.nvim_create_augroup("gesso.native:" .. bufnr, { clear = true })
  vim.api.nvim_create_autocmd({ "CursorMovedI", "TextChangedP" }, {
    group = events,
    buffer = bufnr,
    callback = function()
      local current = states[bufnr] and states[bufnr].suggestion
      if not (current and current:rest() and suggestion.cursor().row == current.row) then
        vim.api.nvim_buf_clear_namespace(bufnr, namespace(), 0, -1)
      end
    end,
  })
  return events
end

--- Lets Neovim request and draw the buffer's suggestions.
function M.enable(bufnr, client)
  if states[bufnr] and states[bufnr].client_id == client.id then
    return
  end
  M.disable(bufnr)
  if not client.gesso_intercepted then
    client.gesso_intercepted = true
    intercept(client)
  end
  vim.lsp.inline_completion.enable(true, { bufnr = bufnr })
  states[bufnr] = { client_id = client.id, last_request = 0, events = remove_contradicted(bufnr) }
end

function M.disable(bufnr)
  local state = states[bufnr]
  if state then
    states[bufnr] = nil
    vim.api.nvim_del_augroup_by_id(state.events)
    if vim.api.nvim_buf_is_valid(bufnr) then
      vim.lsp.inline_completion.enable(false, { bufnr = bufnr })
    end
  end
end

--- Requests the rest of the visible suggestion, as Neovim does.
function M.extend(bufnr)
  local state = states[bufnr]
  local client = state and vim.lsp.get_client_by_id(state.client_id)
  if client and M.current(bufnr) then
    local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
    params.context = { triggerKind = AUTOMATIC }
    server.call(client, "request", server.METHOD, params, state.handler, bufnr)
  end
end

--- Removes the suggestion from the screen. If it was `rejected`, Neovim requests no other before the next key.
function M.clear(bufnr, rejected)
  local state = states[bufnr]
  if state then
    state.suggestion = nil
    state.last_request = state.last_request + 1
    vim.api.nvim_buf_clear_namespace(bufnr, namespace(), 0, -1)
    if rejected then
      vim.lsp.inline_completion.get({ bufnr = bufnr, on_accept = function() end })
    end
  end
end

return M
