--- Maps the keys in buffers that have suggestions. Without a visible suggestion or next edit a key keeps its previous
--- function. Tab also yields to the popup menu, snippets and indentation.
local actions = require("gesso.actions")
local next_edit = require("gesso.next_edit")

local M = {}

local DESCRIPTION_PREFIX = "Gesso: "
local TAB = "\t"

--- Whether only white space is left of the cursor, so that Tab indents.
local function is_at_line_start()
  local column = vim.api.nvim_win_get_cursor(0)[2]
  return not vim.api.nvim_get_current_line():sub(1, column):find("%S")
end

---@type table<string, { run: fun(): boolean, description: string, mode: string|nil }>  mode: insert by default
local mapped_actions = {
  accept = {
    run = function()
      return actions.accept() or (not is_at_line_start() and next_edit.take())
    end,
    description = "accept the suggestion, or take the next edit",
  },
  take_edit = { run = next_edit.take, description = "go to the next edit, or take it", mode = "n" },
  drop_edit = { run = next_edit.drop, description = "drop the next edit", mode = "n" },
  accept_word = { run = actions.accept_word, description = "accept the next word of the suggestion" },
  accept_line = { run = actions.accept_line, description = "accept the next line of the suggestion" },
  next = {
    run = function()
      return actions.cycle(1)
    end,
    description = "next suggestion",
  },
  previous = {
    run = function()
      return actions.cycle(-1)
    end,
    description = "previous suggestion",
  },
  dismiss = {
    run = function()
      return actions.dismiss() or next_edit.drop()
    end,
    description = "dismiss the suggestion, or drop the next edit",
  },
  trigger = { run = actions.trigger, description = "request a suggestion" },
}

---@type gesso.Keys
local keys = {}

---@param configured gesso.Keys
function M.setup(configured)
  keys = configured
end

local function keycode(key)
  return vim.api.nvim_replace_termcodes(key, true, true, true)
end

--- Whether the cursor is in a line's indentation and the suggestion starts with an indent. Tab then indents, which
--- types the start of the suggestion.
local function is_indentation()
  local current = actions.current()
  local column = vim.api.nvim_win_get_cursor(0)[2]
  if not current or vim.api.nvim_get_current_line():sub(1, column):find("%S") then
    return false
  end
  local indent = current:rest():match("^[ \t]*")
  return indent:sub(1, 1) == TAB or #indent >= math.max(vim.fn.shiftwidth(), 1)
end

local function yields_key(key, name)
  if vim.fn.pumvisible() == 1 then
    return name ~= "trigger"
  end
  if name == "accept" and keycode(key) == TAB then
    return vim.snippet.active({ direction = 1 }) or is_indentation()
  end
  return false
end

local function global_mapping(key, mode)
  for _, mapping in ipairs(vim.api.nvim_get_keymap(mode)) do
    if mapping.lhsraw == key or mapping.lhsrawalt == key then
      return mapping
    end
  end
end

--- Does what the key would do without this plugin: its previous mapping in the buffer, or its global mapping now.
local function run_previous(key, previous, mode)
  local mapping = previous or global_mapping(keycode(key), mode)
  if not mapping then
    return vim.api.nvim_feedkeys(keycode(key), "in", false)
  end
  local keys_to_feed
  if mapping.callback then
    keys_to_feed = mapping.callback()
  elseif mapping.expr == 1 then
    keys_to_feed = vim.api.nvim_eval((mapping.rhs:gsub("<SID>", ("<SNR>%d_"):format(mapping.sid))))
  else
    keys_to_feed = keycode((mapping.rhs:gsub("<SID>", ("<SNR>%d_"):format(mapping.sid))))
  end
  if mapping.callback and mapping.expr ~= 1 or type(keys_to_feed) ~= "string" then
    return
  end
  if mapping.replace_keycodes == 1 then
    keys_to_feed = keycode(keys_to_feed)
  end
  local is_recursive = vim.startswith(keys_to_feed, keycode(key)) -- :imap does not remap this either
  vim.api.nvim_feedkeys(keys_to_feed, (mapping.noremap == 1 or is_recursive) and "in" or "im", false)
end

local function is_ours(mapping)
  return vim.startswith(mapping.desc or "", DESCRIPTION_PREFIX)
end

--- Maps the keys in a buffer, once.
function M.map(bufnr)
  for name, key in pairs(keys) do
    local mode = mapped_actions[name].mode or "i"
    local previous = key and vim.api.nvim_buf_call(bufnr, function()
      return vim.fn.maparg(key, mode, false, true)
    end)
    if previous and previous.buffer ~= 1 then
      previous = nil
    end
    if key and not (previous and is_ours(previous)) then
      local action = mapped_actions[name]
      vim.keymap.set(mode, key, function()
        if (mode == "i" and yields_key(key, name)) or not action.run() then
          run_previous(key, previous, mode)
        end
      end, { buffer = bufnr, desc = DESCRIPTION_PREFIX .. action.description })
    end
  end
end

--- The configured keys and their mappings in the current buffer.
---@return { name: string, key: string, is_ours: boolean, mapping: string }[]
function M.report()
  local report = {}
  for name, key in vim.spairs(keys) do
    if key then
      local mapping = vim.fn.maparg(key, mapped_actions[name].mode or "i", false, true)
      local description = mapping.desc or mapping.rhs or "nothing"
      report[#report + 1] = { name = name, key = key, is_ours = is_ours(mapping), mapping = description }
    end
  end
  return report
end

return M
