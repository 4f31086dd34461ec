--- Asks and draws by itself: for Neovim 0.10 and 0.11, and for what Neovim 0.12 has no public function for (asking by
--- hand, going through alternatives, taking a part). Answers that the text has left behind are thrown away.
local offer = require("gesso.suggestion")
local server = require("gesso.server")

local M = {}

local namespace = vim.api.nvim_create_namespace("gesso")
local AUTOMATIC, INVOKED = 2, 1

---@class gesso.Ghost
---@field client_id integer
---@field events integer|nil  augroup, while in charge
---@field offers gesso.Offer[]
---@field index integer
---@field by_hand boolean  the offers were asked for by hand, so that there are alternatives to keep
---@field request integer|nil
---@field timer uv.uv_timer_t|nil
---@field last string|nil  the text and the place that were looked at last
local ghosts = {} ---@type table<integer, gesso.Ghost>

local on_shown = function(_, _) end
local debounce_ms = 15

---@param shown fun(client: table, item: table)
function M.setup(milliseconds, shown)
  debounce_ms, on_shown = milliseconds, shown
end

local function stop_timer(ghost)
  if ghost.timer then
    ghost.timer:stop()
    ghost.timer:close()
    ghost.timer = nil
  end
end

local function cancel(ghost)
  stop_timer(ghost)
  local client = vim.lsp.get_client_by_id(ghost.client_id)
  if ghost.request and client then
    server.call(client, "cancel_request", ghost.request)
  end
  ghost.request = nil
end

--- The offer on the screen, if it still fits the text.
---@return gesso.Offer|nil
function M.current(bufnr)
  local ghost = ghosts[bufnr]
  local one = ghost and ghost.events and ghost.offers[ghost.index]
  return one and one:rest() and one or nil
end

local function draw(bufnr)
  vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  local ghost, one = ghosts[bufnr], M.current(bufnr)
  if not one then
    return
  end
  local rest, here = one:rest(), offer.here()
  local swallowed = one.after:sub(1, one.swallow)
  local over = one.swallow > 0 and not vim.endswith(rest, swallowed)
  if one.swallow > 0 and not over then
    rest = rest:sub(1, #rest - one.swallow) -- the brackets on the screen already
  end
  local lines = {}
  for _, line in ipairs(vim.split(rest, "\n", { plain = true })) do
    lines[#lines + 1] = { { line, "GessoSuggestion" } }
  end
  if #ghost.offers > 1 then
    table.insert(lines[#lines], { (" (%d/%d)"):format(ghost.index, #ghost.offers), "GessoCount" })
  end
  vim.api.nvim_buf_set_extmark(bufnr, namespace, here.row, here.column, {
    virt_text = lines[1],
    virt_lines = #lines > 1 and { unpack(lines, 2) } or nil,
    virt_text_pos = over and "overlay" or "inline",
    hl_mode = "combine",
  })
end

--- Forgets what is shown and what was asked.
function M.clear(bufnr)
  local ghost = ghosts[bufnr]
  if not ghost then
    return
  end
  cancel(ghost)
  ghost.offers, ghost.index, ghost.by_hand, ghost.last = {}, 1, false, nil
  if vim.api.nvim_buf_is_valid(bufnr) then
    vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
  end
end

--- Shows offers, the one at `index` first.
---@param offers gesso.Offer[]
function M.show(bufnr, offers, index, by_hand)
  local ghost = ghosts[bufnr]
  ghost.offers, ghost.index, ghost.by_hand = offers, index, by_hand
  draw(bufnr)
  local client, one = vim.lsp.get_client_by_id(ghost.client_id), M.current(bufnr)
  if client and one then
    on_shown(client, one.item)
  end
end

local function ask(bufnr, kind, done)
  local ghost = ghosts[bufnr]
  local client = ghost and vim.lsp.get_client_by_id(ghost.client_id)
  if not client then
    return
  end
  cancel(ghost)
  local place = offer.here()
  local params = vim.lsp.util.make_position_params(0, client.offset_encoding)
  params.context = { triggerKind = kind }
  local request
  local _, sent = server.call(client, "request", server.METHOD, params, function(err, result)
    if ghosts[bufnr] ~= ghost or ghost.request ~= request then
      return -- a newer one was sent, or all was dismissed
    end
    ghost.request = nil
    if err or vim.fn.mode():sub(1, 1) ~= "i" or vim.api.nvim_get_current_buf() ~= bufnr then
      return
    end
    done(vim.tbl_filter(function(one)
      return one:rest() ~= nil
    end, offer.all(place, result, client.offset_encoding)))
  end, bufnr)
  request, ghost.request = sent, sent
end

local function state_of(bufnr)
  local here = offer.here()
  return table.concat({ vim.b[bufnr].changedtick, here.row, here.column }, " ")
end

--- Asks by hand, for several alternatives. Events of what was typed before, which may come later, change nothing.
---@param done fun(offers: gesso.Offer[])
function M.ask_by_hand(bufnr, done)
  ghosts[bufnr].last = state_of(bufnr)
  ask(bufnr, INVOKED, done)
end

local function ask_soon(bufnr)
  local ghost = ghosts[bufnr]
  cancel(ghost)
  if not server.state.enabled or vim.fn.reg_executing() ~= "" then
    return
  end
  local timer
  timer = vim.defer_fn(function()
    if ghost.timer ~= timer then
      return -- stopped when it had gone off already
    end
    ghost.timer = nil
    if ghosts[bufnr] == ghost and ghost.events and vim.api.nvim_get_current_buf() == bufnr then
      ask(bufnr, AUTOMATIC, function(offers)
        M.show(bufnr, offers, 1, false)
      end)
    end
  end, debounce_ms)
  ghost.timer = timer
end

local function moved(bufnr)
  local ghost = ghosts[bufnr]
  local state = state_of(bufnr)
  if state == ghost.last then
    return
  end
  ghost.last = state
  draw(bufnr)
  if not (ghost.by_hand and M.current(bufnr)) then
    if not M.current(bufnr) then
      ghost.offers, ghost.by_hand = {}, false
    end
    ask_soon(bufnr)
  end
end

--- From now on the buffer's suggestions are asked for and drawn here.
function M.take_charge(bufnr, client_id)
  local ghost = ghosts[bufnr]
  if ghost and ghost.client_id == client_id and ghost.events then
    return
  end
  M.leave(bufnr)
  local events = vim.api.nvim_create_augroup("gesso.ghost:" .. bufnr, { clear = true })
  ghosts[bufnr] = { client_id = client_id, events = events, offers = {}, index = 1, by_hand = false }
  vim.api.nvim_create_autocmd({ "InsertEnter", "CursorMovedI", "TextChangedI", "TextChangedP" }, {
    group = events,
    buffer = bufnr,
    callback = function()
      moved(bufnr)
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

--- Gives the buffer up.
function M.leave(bufnr)
  local ghost = ghosts[bufnr]
  if ghost then
    M.clear(bufnr)
    vim.api.nvim_del_augroup_by_id(ghost.events)
    ghosts[bufnr] = nil
  end
end

---@return boolean
function M.is_in_charge(bufnr)
  return ghosts[bufnr] ~= nil
end

--- What can be gone through, which of it is shown, and whether it was asked for by hand, so that it is all there is.
---@return gesso.Offer[], integer, boolean
function M.offers(bufnr)
  local ghost = ghosts[bufnr]
  if not ghost then
    return {}, 1, false
  end
  return ghost.offers, ghost.index, ghost.by_hand
end

--- Draws again what is left, after a part was written.
function M.refresh(bufnr)
  draw(bufnr)
end

return M
