--- Neovim 0.12's own inline completion: it asks and draws. Here stands what it lets through wrongly: ghost text that
--- the typed text has contradicted is taken off the screen, late answers are dropped, cancelled requests leave no error
--- in the log. Uses public functions only.
local offer = require("gesso.suggestion")
local server = require("gesso.server")

local M = {}

---@class gesso.Native
---@field client_id integer
---@field offer gesso.Offer|nil  what Neovim shows
---@field newest integer  number of the last request
---@field events integer  augroup
local natives = {} ---@type table<integer, gesso.Native>

local on_shown = function(_, _) end

---@return boolean
function M.is_there()
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

--- The offer on the screen, if it still fits the text.
---@return gesso.Offer|nil
function M.current(bufnr)
  local native = natives[bufnr]
  local one = native and native.offer
  return one and one:rest() and is_drawn(bufnr) and one or nil
end

local function answered(native, client, bufnr, place, handler)
  native.newest = native.newest + 1
  local number = native.newest
  return function(err, result, context)
    if natives[bufnr] ~= native or number ~= native.newest then
      return
    end
    if err then
      if not vim.list_contains({ -32800, -32801, -32802 }, err.code) then
        handler(err, result, context)
      end
      return
    end
    if vim.api.nvim_get_current_buf() ~= bufnr then
      return
    end
    local fitting = vim.tbl_filter(function(one)
      return one:rest() ~= nil
    end, offer.all(place, result, client.offset_encoding))
    native.offer = fitting[1]
    local items = vim.tbl_map(function(one)
      return one.item
    end, fitting)
    handler(nil, { items = items }, context)
    if M.current(bufnr) then
      on_shown(client, native.offer.item)
    end
  end
end

--- Lets us see the answers that Neovim asks for.
local function listen(client)
  local request = client.request
  client.request = function(self, method, params, handler, bufnr)
    local native = method == server.METHOD and handler and natives[bufnr]
    if native then
      handler = answered(native, client, bufnr, offer.here(), handler)
    end
    return request(self, method, params, handler, bufnr)
  end
end

--- Takes what no longer fits off the screen; Neovim would leave it there until the next answer.
local function watch(bufnr)
  local events = vim.api.nvim_create_augroup("gesso.native:" .. bufnr, { clear = true })
  vim.api.nvim_create_autocmd({ "CursorMovedI", "TextChangedP" }, {
    group = events,
    buffer = bufnr,
    callback = function()
      local one = natives[bufnr] and natives[bufnr].offer
      if not (one and one:rest() and offer.here().row == one.row) then
        vim.api.nvim_buf_clear_namespace(bufnr, namespace(), 0, -1)
      end
    end,
  })
  return events
end

--- From now on Neovim asks for the buffer's suggestions, and draws them.
function M.take_charge(bufnr, client)
  if natives[bufnr] and natives[bufnr].client_id == client.id then
    return
  end
  M.leave(bufnr)
  if not client.gesso_listens then
    client.gesso_listens = true
    listen(client)
  end
  vim.lsp.inline_completion.enable(true, { bufnr = bufnr })
  natives[bufnr] = { client_id = client.id, newest = 0, events = watch(bufnr) }
end

--- Gives the buffer up.
function M.leave(bufnr)
  local native = natives[bufnr]
  if native then
    natives[bufnr] = nil
    vim.api.nvim_del_augroup_by_id(native.events)
    if vim.api.nvim_buf_is_valid(bufnr) then
      vim.lsp.inline_completion.enable(false, { bufnr = bufnr })
    end
  end
end

---@return boolean
function M.is_in_charge(bufnr)
  return natives[bufnr] ~= nil
end

--- Takes the suggestion off the screen. After it was written Neovim goes on to ask for the next; after it was
--- `refused` it does not, before the next key.
function M.clear(bufnr, refused)
  local native = natives[bufnr]
  if native then
    native.offer = nil
    native.newest = native.newest + 1
    vim.api.nvim_buf_clear_namespace(bufnr, namespace(), 0, -1)
    if refused then
      vim.lsp.inline_completion.get({ bufnr = bufnr, on_accept = function() end })
    end
  end
end

return M
