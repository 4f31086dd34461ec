--- The user's actions on suggestions: accept all or a part, cycle, dismiss, request. Reports them to the server, and
--- decides whether Neovim or the plugin draws.
local ghost = require("gesso.ghost")
local native = require("gesso.native")
local server = require("gesso.server")

local M = {}

local use_native = false
local client_ids = {} ---@type table<integer, integer>  by buffer
local last_shown ---@type string|nil  ID of a suggestion

local function on_shown(client, item)
  local id = item.command and item.command.arguments and item.command.arguments[1]
  if id and id == last_shown then
    return
  end
  last_shown = id
  server.notify(client, "textDocument/didShowCompletion", { item = item })
end

---@param options gesso.Options
function M.setup(options)
  use_native = options.native and native.is_available()
  ghost.setup(options.debounce_ms, on_shown)
  native.setup(on_shown)
end

---@return boolean  whether Neovim draws suggestions, apart from those requested by hand, cycled or partly accepted
function M.uses_native()
  return use_native
end

local function client_of(bufnr)
  return vim.lsp.get_client_by_id(client_ids[bufnr] or -1)
end

--- Shows the client's suggestions in the buffer.
function M.attach(bufnr, client)
  client_ids[bufnr] = client.id
  if not use_native then
    return ghost.enable(bufnr, client.id)
  end
  native.enable(bufnr, client)
  vim.api.nvim_create_autocmd("InsertLeave", {
    group = vim.api.nvim_create_augroup("gesso.buffer:" .. bufnr, { clear = true }),
    buffer = bufnr,
    callback = function()
      local current_client = client_of(bufnr)
      if current_client and ghost.is_enabled(bufnr) then
        ghost.disable(bufnr)
        native.enable(bufnr, current_client)
      end
    end,
  })
end

function M.detach(bufnr)
  client_ids[bufnr] = nil
  ghost.disable(bufnr)
  native.disable(bufnr)
end

--- The suggestion visible at the cursor.
---@return gesso.Suggestion|nil
function M.current()
  local bufnr = vim.api.nvim_get_current_buf()
  return ghost.current(bufnr) or native.current(bufnr)
end

--- The server has more of the suggestion that the buffer shows.
function M.extended(bufnr)
  if ghost.is_enabled(bufnr) then
    ghost.extend(bufnr)
  else
    native.extend(bufnr)
  end
end

---@return boolean
function M.is_visible()
  return M.current() ~= nil
end

--- Lets the plugin draw until insert mode ends, starting with the suggestion that Neovim shows.
local function switch_to_ghost(bufnr)
  if ghost.is_enabled(bufnr) then
    return
  end
  local current = native.current(bufnr)
  native.disable(bufnr)
  ghost.enable(bufnr, client_ids[bufnr])
  if current then
    ghost.show(bufnr, { current }, 1, false)
  end
end

local function clear(bufnr, rejected)
  ghost.clear(bufnr)
  native.clear(bufnr, rejected)
end

--- Inserts the whole suggestion. False if none is visible, as for the functions below.
---@return boolean
function M.accept()
  local current = M.current()
  if not current then
    return false
  end
  clear(current.bufnr, false)
  current:insert()
  if current:id() then
    server.execute(current.item.command.command, current.item.command.arguments)
  end
  return true
end

local function accept_part(length_method)
  local current = M.current()
  if not current then
    return false
  end
  local bytes = current[length_method](current)
  if bytes >= #current:rest() then
    return M.accept()
  end
  switch_to_ghost(current.bufnr)
  local length = current:insert(bytes)
  ghost.draw(current.bufnr)
  local client = client_of(current.bufnr)
  if client then
    local params = { item = current.item, acceptedLength = length }
    server.notify(client, "textDocument/didPartiallyAcceptCompletion", params)
  end
  return true
end

--- Inserts the next word of the suggestion; the rest stays visible.
---@return boolean
function M.accept_word()
  return accept_part("word_length")
end

--- Inserts the next line of the suggestion; the rest stays visible.
---@return boolean
function M.accept_line()
  return accept_part("line_length")
end

--- Hides the suggestion and reports to the server that it was rejected.
---@return boolean
function M.dismiss()
  local current = M.current()
  if not current then
    return false
  end
  clear(current.bufnr, true)
  if current:id() then
    server.execute("gesso.rejected", { current:id() })
  end
  return true
end

local function index_of(suggestions, text)
  for index, one in ipairs(suggestions) do
    if one:rest() == text then
      return index
    end
  end
end

--- Shows the alternative `step` further on. Requests alternatives first if there are none yet.
---@param step integer
---@return boolean
function M.cycle(step)
  local current, bufnr = M.current(), vim.api.nvim_get_current_buf()
  if not current then
    return false
  end
  switch_to_ghost(bufnr)
  local suggestions, index, by_hand = ghost.suggestions(bufnr)
  if by_hand then
    ghost.show(bufnr, suggestions, (index - 1 + step) % #suggestions + 1, true)
    return true
  end
  ghost.request_by_hand(bufnr, function(found)
    local at = index_of(found, current:rest())
    if not at and current:rest() then
      table.insert(found, 1, current)
      at = 1
    end
    if at then
      ghost.show(bufnr, found, (at - 1 + step) % #found + 1, true)
    end
  end)
  return true
end

local function echo_reason()
  server.execute("gesso.whyNothing", {}, function(records)
    local record = vim.iter(records or {}):find(function(one)
      return one.origin ~= "next edit"
    end)
    local sentence = record and record.sentence
    sentence = type(sentence) == "string" and sentence or "There is no suggestion here."
    vim.api.nvim_echo({ { "Gesso: " .. sentence } }, false, {})
  end)
end

--- Requests several suggestions at the cursor; shows the reason if there is none.
---@return boolean
function M.trigger()
  local bufnr = vim.api.nvim_get_current_buf()
  if not client_ids[bufnr] or vim.fn.mode():sub(1, 1) ~= "i" then
    return false
  end
  switch_to_ghost(bufnr)
  ghost.request_by_hand(bufnr, function(found)
    ghost.show(bufnr, found, 1, true)
    if #found == 0 then
      echo_reason()
    end
  end)
  return true
end

--- Reports to the server which document has the focus.
function M.focus(bufnr)
  local client = client_of(bufnr)
  if client then
    local document = vim.lsp.util.make_text_document_params(bufnr)
    server.notify(client, "textDocument/didFocus", { textDocument = document })
  end
end

--- Hides the suggestion without reporting it, because suggestions were switched off.
function M.hide()
  clear(vim.api.nvim_get_current_buf(), true)
end

return M
