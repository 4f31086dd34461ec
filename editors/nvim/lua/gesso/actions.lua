--- What a person does with suggestions: see, accept whole or in part, go through, dismiss, ask. Tells the server of it.
--- Decides who draws: Neovim, or we.
local ghost = require("gesso.ghost")
local native = require("gesso.native")
local offer = require("gesso.suggestion")
local server = require("gesso.server")

local M = {}

local use_native = false
local attached = {} ---@type table<integer, integer>  client of a buffer
local last_shown ---@type string|nil

local function shown(client, item)
  local id = item.command and item.command.arguments and item.command.arguments[1]
  if id and id == last_shown then
    return
  end
  last_shown = id
  server.notify(client, "textDocument/didShowCompletion", { item = item })
end

---@param options gesso.Options
function M.setup(options)
  use_native = options.native and native.is_there()
  ghost.setup(options.debounce_ms, shown)
  native.setup(shown)
end

---@return boolean  whether Neovim itself draws, most of the time
function M.uses_native()
  return use_native
end

local function here()
  return vim.api.nvim_get_current_buf()
end

--- Suggestions in this buffer come from this client from now on.
function M.attach(bufnr, client)
  attached[bufnr] = client.id
  if not use_native then
    return ghost.take_charge(bufnr, client.id)
  end
  native.take_charge(bufnr, client)
  vim.api.nvim_create_autocmd("InsertLeave", {
    group = vim.api.nvim_create_augroup("gesso.buffer:" .. bufnr, { clear = true }),
    buffer = bufnr,
    callback = function()
      local owner = vim.lsp.get_client_by_id(attached[bufnr] or -1)
      if owner and ghost.is_in_charge(bufnr) then
        ghost.leave(bufnr)
        native.take_charge(bufnr, owner)
      end
    end,
  })
end

--- The client is gone from this buffer.
function M.detach(bufnr)
  attached[bufnr] = nil
  ghost.leave(bufnr)
  native.leave(bufnr)
end

--- The suggestion that can be seen at the cursor.
---@return gesso.Offer|nil
function M.current()
  return ghost.current(here()) or native.current(here())
end

---@return boolean
function M.is_visible()
  return M.current() ~= nil
end

--- Until insert mode ends we draw by ourselves, beginning with what Neovim shows.
local function take_over(bufnr)
  if ghost.is_in_charge(bufnr) then
    return
  end
  local one = native.current(bufnr)
  native.leave(bufnr)
  ghost.take_charge(bufnr, attached[bufnr])
  if one then
    ghost.show(bufnr, { one }, 1, false)
  end
end

local function forget(bufnr, refused)
  ghost.clear(bufnr)
  native.clear(bufnr, refused)
end

--- Writes all that is suggested. False where nothing is visible.
---@return boolean
function M.accept()
  local one = M.current()
  if not one then
    return false
  end
  forget(one.bufnr, false)
  one:write()
  if one:id() then
    server.execute(one.item.command.command, one.item.command.arguments)
  end
  return true
end

local function accept_part(measure)
  local one = M.current()
  if not one then
    return false
  end
  local bytes = measure(one)
  if bytes >= #one:rest() then
    return M.accept()
  end
  take_over(one.bufnr)
  local length = one:write(bytes)
  ghost.refresh(one.bufnr)
  local client = vim.lsp.get_client_by_id(attached[one.bufnr])
  if client then
    server.notify(client, "textDocument/didPartiallyAcceptCompletion", { item = one.item, acceptedLength = length })
  end
  return true
end

--- Writes the next word of the suggestion and leaves the rest on the screen.
---@return boolean
function M.accept_word()
  return accept_part(function(one)
    return one:word()
  end)
end

--- Writes the next line of the suggestion and leaves the rest on the screen.
---@return boolean
function M.accept_line()
  return accept_part(function(one)
    return one:line()
  end)
end

--- Takes the suggestion away and tells the server that it was not wanted.
---@return boolean
function M.dismiss()
  local one = M.current()
  if not one then
    return false
  end
  forget(one.bufnr, true)
  if one:id() then
    server.execute("gesso.rejected", { one:id() })
  end
  return true
end

local function position(offers, text)
  for index, one in ipairs(offers) do
    if one:rest() == text then
      return index
    end
  end
end

--- Shows the alternative that is `step` further on; asks for alternatives first where there is but one suggestion.
---@param step integer
---@return boolean
function M.cycle(step)
  local one, bufnr = M.current(), here()
  if not one then
    return false
  end
  take_over(bufnr)
  local offers, index, by_hand = ghost.offers(bufnr)
  if by_hand then
    ghost.show(bufnr, offers, (index - 1 + step) % #offers + 1, true)
    return true
  end
  ghost.ask_by_hand(bufnr, function(found)
    local at = position(found, one:rest())
    if not at and one:rest() then
      table.insert(found, 1, one)
      at = 1
    end
    if at then
      ghost.show(bufnr, found, (at - 1 + step) % #found + 1, true)
    end
  end)
  return true
end

local function tell_why_nothing()
  server.execute("gesso.whyNothing", {}, function(records)
    local sentence = records and records[1] and records[1].sentence
    sentence = type(sentence) == "string" and sentence or "There is no suggestion here."
    vim.api.nvim_echo({ { "Gesso: " .. sentence } }, false, {})
  end)
end

--- Asks for suggestions here and now, several of them; says why where there is none.
---@return boolean
function M.trigger()
  local bufnr = here()
  if not attached[bufnr] or vim.fn.mode():sub(1, 1) ~= "i" then
    return false
  end
  take_over(bufnr)
  ghost.ask_by_hand(bufnr, function(found)
    ghost.show(bufnr, found, 1, true)
    if #found == 0 then
      tell_why_nothing()
    end
  end)
  return true
end

--- Tells the server which document the user looks at.
function M.focus(bufnr)
  local client = vim.lsp.get_client_by_id(attached[bufnr] or -1)
  if client then
    local document = vim.lsp.util.make_text_document_params(bufnr)
    server.notify(client, "textDocument/didFocus", { textDocument = document })
  end
end

--- Takes away what is visible, without a word to the server: suggestions were switched off.
function M.hide()
  forget(here(), true)
end

return M
