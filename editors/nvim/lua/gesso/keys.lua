--- Keys, local to the buffers that have suggestions. A key does what it did before unless a suggestion is visible; Tab
--- also leaves the popup menu, snippets and indentation what is theirs.
local suggestions = require("gesso.actions")

local M = {}

local MARK = "Gesso: "
local TAB = "\t"

local actions = {
  accept = { suggestions.accept, "accept the suggestion" },
  accept_word = { suggestions.accept_word, "accept the next word of the suggestion" },
  accept_line = { suggestions.accept_line, "accept the next line of the suggestion" },
  next = {
    function()
      return suggestions.cycle(1)
    end,
    "next suggestion",
  },
  previous = {
    function()
      return suggestions.cycle(-1)
    end,
    "previous suggestion",
  },
  dismiss = { suggestions.dismiss, "dismiss the suggestion" },
  trigger = { suggestions.trigger, "ask for a suggestion" },
}

---@type table<string, string|false>
local keys = {}

---@param given gesso.Keys
function M.setup(given)
  keys = given
end

local function raw(key)
  return vim.api.nvim_replace_termcodes(key, true, true, true)
end

--- In the indentation of a line, a suggestion that begins with an indent: Tab then indents, which agrees with it.
local function is_indentation()
  local one = suggestions.current()
  local column = vim.api.nvim_win_get_cursor(0)[2]
  if not one or vim.api.nvim_get_current_line():sub(1, column):find("%S") then
    return false
  end
  local blanks = one:rest():match("^[ \t]*")
  return blanks:sub(1, 1) == TAB or #blanks >= math.max(vim.fn.shiftwidth(), 1)
end

local function belongs_to_others(key, name)
  if vim.fn.pumvisible() == 1 then
    return name ~= "trigger"
  end
  if name == "accept" and raw(key) == TAB then
    return vim.snippet.active({ direction = 1 }) or is_indentation()
  end
  return false
end

local function global_mapping(key)
  for _, mapping in ipairs(vim.api.nvim_get_keymap("i")) do
    if mapping.lhsraw == key or mapping.lhsrawalt == key then
      return mapping
    end
  end
end

--- Does what the key would do without us: what was mapped to it in the buffer, else what is mapped to it anywhere.
local function do_as_before(key, earlier)
  local mapping = earlier or global_mapping(raw(key))
  if not mapping then
    return vim.api.nvim_feedkeys(raw(key), "in", false)
  end
  local typed
  if mapping.callback then
    typed = mapping.callback()
  elseif mapping.expr == 1 then
    typed = vim.api.nvim_eval((mapping.rhs:gsub("<SID>", ("<SNR>%d_"):format(mapping.sid))))
  else
    typed = raw((mapping.rhs:gsub("<SID>", ("<SNR>%d_"):format(mapping.sid))))
  end
  if mapping.callback and mapping.expr ~= 1 or type(typed) ~= "string" then
    return
  end
  if mapping.replace_keycodes == 1 then
    typed = raw(typed)
  end
  local is_itself = vim.startswith(typed, raw(key)) -- as with :imap, which would not map it again either
  vim.api.nvim_feedkeys(typed, (mapping.noremap == 1 or is_itself) and "in" or "im", false)
end

--- Maps the keys in a buffer, once.
function M.map(bufnr)
  for name, key in pairs(keys) do
    if key then
      local earlier = vim.api.nvim_buf_call(bufnr, function()
        return vim.fn.maparg(key, "i", false, true)
      end)
      local is_ours = vim.startswith(earlier.desc or "", MARK)
      if earlier.buffer ~= 1 then
        earlier = nil
      end
      if not (earlier and is_ours) then
        local action, what = unpack(actions[name])
        vim.keymap.set("i", key, function()
          if belongs_to_others(key, name) or not action() then
            do_as_before(key, earlier)
          end
        end, { buffer = bufnr, desc = MARK .. what })
      end
    end
  end
end

--- For each key that is set, what it does in the current buffer: ours, or somebody else's.
---@return { name: string, key: string, ours: boolean, now: string }[]
function M.report()
  local found = {}
  for name, key in vim.spairs(keys) do
    if key then
      local now = vim.fn.maparg(key, "i", false, true)
      local ours = vim.startswith(now.desc or "", MARK)
      found[#found + 1] = { name = name, key = key, ours = ours, now = now.desc or now.rhs or "nothing" }
    end
  end
  return found
end

return M
