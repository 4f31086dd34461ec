--- Requests and draws suggestions as ghost text without Neovim's inline completion: in Neovim 0.10 and 0.11, and for
--- what Neovim 0.12 has no public function for (requests by hand, alternatives, partial acceptance). Drops answers that
--- no longer fit the buffer.
local server = require("gesso.server")
local suggestion = require("gesso.suggestion")

local M = {}

local namespace = vim.api.nvim_create_namespace("gesso")
local INVOKED, AUTOMATIC = 1, 2 -- LSP: InlineCompletionTriggerKind

---@class gesso.Ghost
---@field client_id integer
---@field events integer  augroup
---@field suggestions gesso.Suggestion[]
---@field index integer  of the visible one
---@field by_hand boolean  the suggestions were requested by hand, so they include alternatives
---@field request integer|nil
---@field timer uv.uv_timer_t|nil
---@field last string|nil  text and cursor that were handled last
local states = {} ---@type table<integer, gesso.Ghost>

local on_shown = function(_, _) end
local debounce_ms = 15

---@param shown fun(client: table, item: table)
function M.setup(milliseconds, shown)
  debounce_ms, on_shown = milliseconds, shown
end

local function stop_timer(state)
  if state.timer then
    state.timer:stop()
    state.timer:close()
    state.timer = nil
  end
end

local function cancel(state)
  stop_timer(state)
  local client = vim.lsp.get_client_by_id(state.client_id)
  if state.request and client then
    server.call(client, "cancel_request", state.request)
  end
  state.request = nil
end

--- The visible suggestion, if it still fits the buffer.
---@return gesso.Suggestion|nil
function M.current(bufnr)
  local state = states[bufnr]
  local current = state and state.suggestions[state.index]
  return current and current:rest() and current or nil
end

--- Draws what is left of the current suggestion, or nothing.
function M.draw(bufnr)
  vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  local state, current = states[bufnr], M.current(bufnr)
  if not current then
    return
  end
  local rest, cursor = current:rest(), suggestion.cursor()
  local replaced = current.after:sub(1, current.replaced)
  local overlay = current.replaced > 0 and not vim.endswith(rest, replaced)
  if current.replaced > 0 and not overlay then
    rest = rest:sub(1, #rest - current.replaced) -- closing brackets that the line already has
  end
  local lines = {}
  for _, line in ipairs(vim.split(rest, "\n", { plain = true })) do
    lines[#lines + 1] = { { line, "GessoSuggestion" } }
  end
  if #state.suggestions > 1 then
    table.insert(lines[#lines], { (" (%d/%d)"):format(state.index, #state.suggestions), "GessoCount" })
  end
  vim.api.nvim_buf_set_extmark(bufnr, namespace, cursor.row, cursor.column, {
    virt_text = lines[1],
    virt_lines = #lines > 1 and { unpack(lines, 2) } or nil,
    virt_text_pos = overlay and "overlay" or "inline",
    hl_mode = "combine",
  })
end

--- Cancels the request and removes the suggestions.
function M.clear(bufnr)
  local state = states[bufnr]
  if not state then
    return
  end
  cancel(state)
  state.suggestions, state.index, state.by_hand, state.last = {}, 1, false, nil
  if vim.api.nvim_buf_is_valid(bufnr) then
    vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  end
end

--- Shows the suggestion at `index` of these.
---@param suggestions gesso.Suggestion[]
function M.show(bufnr, suggestions, index, by_hand)
  local state = states[bufnr]
  state.suggestions, state.index, state.by_hand = suggestions, index, by_hand
  M.draw(bufnr)
  local client, current = vim.lsp.get_client_by_id(state.client_id), M.current(bufnr)
  if client and current then
    on_shown(client, current.item)
  end
end

local function request(bufnr, trigger_kind, done)
  local state = states[bufnr]
  local client = state and vim.lsp.get_client_by_id(state.client_id)
  if not client then
    return
  end
  cancel(state)
  local position = suggestion.cursor()
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = trigger_kind }
  local id
  local _, sent_id = server.call(client, "request", server.METHOD, params, function(err, result)
    if states[bufnr] ~= state or state.request ~= id then
      return -- superseded or cleared
    end
    state.request = nil
    if err or vim.fn.mode():sub(1, 1) ~= "i" or vim.api.nvim_get_current_buf() ~= bufnr then
      return
    end
    done(suggestion.from_result(position, result, client.offset_encoding))
  end, bufnr)
  id, state.request = sent_id, sent_id
end

--- Requests the rest of the visible suggestion.
function M.extend(bufnr)
  local state = states[bufnr]
  if M.current(bufnr) and not (state.by_hand or state.request or state.timer) then
    request(bufnr, AUTOMATIC, function(suggestions)
      M.show(bufnr, suggestions, 1, false)
    end)
  end
end

local function text_and_cursor(bufnr)
  local cursor = suggestion.cursor()
  return table.concat({ vim.b[bufnr].changedtick, cursor.row, cursor.column }, " ")
end

--- Requests several alternatives. Events of earlier typing that arrive later do not cancel this request.
---@param done fun(suggestions: gesso.Suggestion[])
function M.request_by_hand(bufnr, done)
  states[bufnr].last = text_and_cursor(bufnr)
  request(bufnr, INVOKED, done)
end

local function request_debounced(bufnr)
  local state = states[bufnr]
  cancel(state)
  if not server.state.enabled or vim.fn.reg_executing() ~= "" then
    return
  end
  local timer
  timer = vim.defer_fn(function()
    if state.timer ~= timer then
      return -- stopped after it had fired
    end
    state.timer = nil
    if states[bufnr] == state and vim.api.nvim_get_current_buf() == bufnr then
      request(bufnr, AUTOMATIC, function(suggestions)
        M.show(bufnr, suggestions, 1, false)
      end)
    end
  end, debounce_ms)
  state.timer = timer
end

local function update(bufnr)
  local state = states[bufnr]
  local current = text_and_cursor(bufnr)
  if current == state.last then
    return
  end
  state.last = current
  M.draw(bufnr)
  if not (state.by_hand and M.current(bufnr)) then
    if not M.current(bufnr) then
      state.suggestions, state.by_hand = {}, false
    end
    request_debounced(bufnr)
  end
end

--- Requests and draws the buffer's suggestions from now on.
function M.enable(bufnr, client_id)
  if states[bufnr] and states[bufnr].client_id == client_id then
    return
  end
  M.disable(bufnr)
  local events = vim.api.nvim_create_augroup("gesso.ghost:" .. bufnr, { clear = true })
  states[bufnr] = { client_id = client_id, events = events, suggestions = {}, index = 1, by_hand = false }
  vim.api.nvim_create_autocmd({ "InsertEnter", "CursorMovedI", "TextChangedI", "TextChangedP" }, {
    group = events,
    buffer = bufnr,
    callback = function()
      update(bufnr)
    end,
  })
  vim.api.nvim_create_autocmd({ "InsertLeave", "BufLeave" }, {
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
    vim.api.nvim_del_augroup_by_id(state.events)
    states[bufnr] = nil
  end
end

---@return boolean
function M.is_enabled(bufnr)
  return states[bufnr] ~= nil
end

--- The suggestions, the index of the visible one, and whether they were requested by hand.
---@return gesso.Suggestion[], integer, boolean
function M.suggestions(bufnr)
  local state = states[bufnr]
  return state.suggestions, state.index, state.by_hand
end

return M
