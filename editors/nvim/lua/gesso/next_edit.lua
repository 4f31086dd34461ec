--- Next edits: asks the server what the last edit makes due elsewhere, shows one proposal by extmarks, and applies or
--- drops it. Must not know suggestions.
local server = require("gesso.server")

local M = {}

local METHOD, WAIT_MS = "textDocument/copilotInlineEdit", 150
local INVOKED, AUTOMATIC = 1, 2 -- LSP: InlineCompletionTriggerKind
local namespace = vim.api.nvim_create_namespace("gesso.next_edit")

---@class gesso.NextEdit
---@field client_id integer
---@field edits table[]  as the server sent them; empty: nothing is shown
---@field tick integer  the buffer's changedtick that they are for
---@field request integer|nil
---@field unanswered {tick: integer, row: integer}|nil  where the server proposed nothing, perhaps not yet
---@field edited boolean|nil
---@field timer uv.uv_timer_t
local states = {} ---@type table<integer, gesso.NextEdit>

local function client_of(state)
  return state and vim.lsp.get_client_by_id(state.client_id)
end

--- Hides the proposal and ends the request.
function M.clear(bufnr)
  local state = states[bufnr]
  if not state then
    return
  end
  state.timer:stop()
  local client = client_of(state)
  if state.request and client then
    server.call(client, "cancel_request", state.request)
  end
  state.request, state.edits, state.unanswered = nil, {}, nil
  if vim.api.nvim_buf_is_valid(bufnr) then
    vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  end
end

--- Row and byte column of a position.
local function byte_position(bufnr, position, encoding)
  local line = vim.api.nvim_buf_get_lines(bufnr, position.line, position.line + 1, false)[1]
  if not line then
    return position.line, 0
  end
  if encoding == "utf-8" then
    return position.line, math.min(position.character, #line)
  end
  local ok, index
  if vim.fn.has("nvim-0.11") == 1 then
    ok, index = pcall(vim.str_byteindex, line, encoding, position.character, false)
  else
    ok, index = pcall(vim.str_byteindex, line, position.character, encoding == "utf-16")
  end
  return position.line, ok and index or #line
end

local function draw_edit(bufnr, edit, encoding)
  local row, column = byte_position(bufnr, edit.range.start, encoding)
  local end_row, end_column = byte_position(bufnr, edit.range["end"], encoding)
  local count = vim.api.nvim_buf_line_count(bufnr)
  if row >= count then
    return
  end
  if end_row >= count then
    end_row = count - 1
    end_column = #vim.api.nvim_buf_get_lines(bufnr, end_row, end_row + 1, false)[1]
  end
  if row ~= end_row or column ~= end_column then
    local old = { end_row = end_row, end_col = end_column, hl_group = "GessoNextEditOld" }
    vim.api.nvim_buf_set_extmark(bufnr, namespace, row, column, old)
  end
  local lines = vim.split(edit.text, "\n", { plain = true })
  if lines[#lines] == "" and #lines > 1 then
    table.remove(lines)
  end
  local below = {}
  for index = 2, #lines do
    below[#below + 1] = { { lines[index], "GessoNextEditNew" } }
  end
  vim.api.nvim_buf_set_extmark(bufnr, namespace, end_row, end_column, {
    virt_text = lines[1] ~= "" and { { lines[1], "GessoNextEditNew" } } or nil,
    virt_text_pos = "inline",
    virt_lines = #below > 0 and below or nil,
  })
end

local function is_on_screen(row)
  return row + 1 >= vim.fn.line("w0") and row + 1 <= vim.fn.line("w$")
end

local function draw(bufnr, state, encoding)
  for _, edit in ipairs(state.edits) do
    draw_edit(bufnr, edit, encoding)
  end
  local row = state.edits[1].range.start.line
  local reason = state.edits[1].command and state.edits[1].command.title or ""
  local at = is_on_screen(row) and row or vim.api.nvim_win_get_cursor(0)[1] - 1
  if at ~= row then
    reason = ("line %d: %s"):format(row + 1, reason)
  end
  if at < vim.api.nvim_buf_line_count(bufnr) then
    local text = { { "  " .. reason, "GessoNextEditReason" } }
    vim.api.nvim_buf_set_extmark(bufnr, namespace, at, 0, { virt_text = text, virt_text_pos = "eol" })
  end
end

local ask_if_moved

local function request(bufnr, kind, done)
  local state = states[bufnr]
  local client = client_of(state)
  if not client or not server.state.enabled or vim.api.nvim_get_current_buf() ~= bufnr then
    return
  end
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.textDocument.version = vim.lsp.util.buf_versions[bufnr]
  params.context = { triggerKind = kind }
  local tick = vim.api.nvim_buf_get_changedtick(bufnr)
  local row = params.position.line
  local id
  local _, sent_id = server.call(client, "request", METHOD, params, function(err, result)
    if states[bufnr] ~= state or state.request ~= id then
      return
    end
    state.request = nil
    local edits = not err and result and result.edits or {}
    if vim.api.nvim_get_current_buf() ~= bufnr or vim.api.nvim_buf_get_changedtick(bufnr) ~= tick then
      return
    end
    M.show(bufnr, edits, tick)
    if #edits == 0 then
      state.unanswered = { tick = tick, row = row }
      ask_if_moved(bufnr)
    end
    if done then
      done(#edits > 0)
    end
  end, bufnr)
  id, state.request = sent_id, sent_id
end

--- Shows a proposal, in place of the current one.
---@param edits table[]
function M.show(bufnr, edits, tick)
  local state = states[bufnr]
  M.clear(bufnr)
  local client = client_of(state)
  if #edits == 0 or not client then
    return
  end
  state.edits, state.tick = edits, tick
  draw(bufnr, state, client.offset_encoding)
  server.notify(client, "textDocument/didShowInlineEdit", { item = { command = edits[1].command } })
end

--- Whether a proposal for the present text of the current buffer is shown.
---@return boolean
function M.is_visible()
  local bufnr = vim.api.nvim_get_current_buf()
  local state = states[bufnr]
  return state ~= nil and #state.edits > 0 and state.tick == vim.api.nvim_buf_get_changedtick(bufnr)
end

--- Goes to the proposal if it is off screen, otherwise applies all of it, in one undo step. False if there is none.
---@return boolean
function M.take()
  if not M.is_visible() then
    return false
  end
  local bufnr = vim.api.nvim_get_current_buf()
  local state = states[bufnr]
  local client = client_of(state)
  if not client then
    return false
  end
  local first = state.edits[1]
  if not is_on_screen(first.range.start.line) then
    local row, column = byte_position(bufnr, first.range.start, client.offset_encoding)
    vim.cmd("normal! m'")
    vim.api.nvim_win_set_cursor(0, { row + 1, column })
    vim.cmd("normal! zz")
    local edits, tick = state.edits, state.tick
    vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
    state.edits, state.tick = edits, tick
    draw(bufnr, state, client.offset_encoding)
    return true
  end
  local changes = vim.tbl_map(function(edit)
    return { range = edit.range, newText = edit.text }
  end, state.edits)
  M.clear(bufnr)
  vim.lsp.util.apply_text_edits(changes, bufnr, client.offset_encoding)
  if first.command then
    server.execute(first.command.command, first.command.arguments)
  end
  return true
end

--- Hides the proposal; its kind does not come for a while. False if there is none.
---@return boolean
function M.drop()
  if not M.is_visible() then
    return false
  end
  local bufnr = vim.api.nvim_get_current_buf()
  local command = states[bufnr].edits[1].command
  M.clear(bufnr)
  if command then
    server.execute("gesso.nextEditDismissed", command.arguments)
  end
  return true
end

--- Asks by hand; `done` gets whether there is a proposal.
---@param done fun(found: boolean)|nil
---@return boolean  false if the buffer has no server
function M.ask(done)
  local bufnr = vim.api.nvim_get_current_buf()
  if not states[bufnr] then
    return false
  end
  M.clear(bufnr)
  request(bufnr, INVOKED, done)
  return true
end

local function ask_soon(bufnr)
  local state = states[bufnr]
  local ask = vim.schedule_wrap(function()
    if states[bufnr] == state then
      request(bufnr, AUTOMATIC)
    end
  end)
  state.timer:start(WAIT_MS, 0, ask)
end

--- Asks again once the cursor leaves the line of an edit that did not seem to be finished.
function ask_if_moved(bufnr)
  local state = states[bufnr]
  local last = state and state.unanswered
  if not last or vim.api.nvim_get_current_buf() ~= bufnr or last.row == vim.api.nvim_win_get_cursor(0)[1] - 1 then
    return
  end
  if last.tick == vim.api.nvim_buf_get_changedtick(bufnr) then
    state.unanswered = nil
    ask_soon(bufnr)
  end
end

--- Asks after each change in this buffer from now on.
function M.enable(bufnr, client_id)
  M.disable(bufnr)
  states[bufnr] = { client_id = client_id, edits = {}, tick = 0, timer = assert(vim.uv.new_timer()) }
  local events = vim.api.nvim_create_augroup("gesso.next_edit:" .. bufnr, { clear = true })
  vim.api.nvim_create_autocmd({ "TextChanged", "TextChangedI", "InsertLeave" }, {
    group = events,
    buffer = bufnr,
    callback = function(event)
      local state = states[bufnr]
      if not state or (event.event == "InsertLeave" and M.is_visible()) then
        return
      end
      M.clear(bufnr)
      state.edited = true
      ask_soon(bufnr)
    end,
  })
  vim.api.nvim_create_autocmd({ "CursorMoved", "CursorMovedI" }, {
    group = events,
    buffer = bufnr,
    callback = function()
      ask_if_moved(bufnr)
    end,
  })
  vim.api.nvim_create_autocmd("BufEnter", {
    group = events,
    buffer = bufnr,
    callback = function()
      local state = states[bufnr]
      if state and state.edited and not M.is_visible() then
        ask_soon(bufnr)
      end
    end,
  })
  vim.api.nvim_create_autocmd("BufLeave", {
    group = events,
    buffer = bufnr,
    callback = function()
      M.clear(bufnr)
    end,
  })
end

function M.disable(bufnr)
  local state = states[bufnr]
  if state then
    M.clear(bufnr)
    state.timer:close()
    states[bufnr] = nil
    vim.api.nvim_create_augroup("gesso.next_edit:" .. bufnr, { clear = true })
  end
end

return M
