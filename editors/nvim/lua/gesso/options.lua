--- What `setup()` takes: defaults, and a clear sentence for what is wrong. Knows nothing of the server's own settings,
--- which go to it as they are.
local M = {}

---@class gesso.Keys  a key, or false for none
---@field accept string|false
---@field accept_word string|false
---@field accept_line string|false
---@field next string|false
---@field previous string|false
---@field dismiss string|false
---@field trigger string|false

---@class gesso.Options
---@field cmd string[]|nil  the server's command; nil: gesso-lsp on PATH
---@field cmd_env table<string, string>|nil  more environment for the server
---@field filetypes string[]|nil  only these; nil: every file's
---@field root_markers string[]  what the folder of a project is known by
---@field settings table  the server's settings (section "gesso")
---@field native boolean  use Neovim's own inline completion where it has it
---@field debounce_ms integer  without `native`: how long keys are gathered before the server is asked
---@field auto_restart boolean  start the server again when it ended by itself
---@field keys gesso.Keys
M.defaults = {
  cmd = nil,
  cmd_env = nil,
  filetypes = nil,
  root_markers = { ".git", "gesso.toml", "pyproject.toml", "package.json", "Cargo.toml", "go.mod" },
  settings = {},
  native = true,
  debounce_ms = 15,
  auto_restart = true,
  keys = {
    accept = "<Tab>",
    accept_word = "<M-Right>",
    accept_line = "<M-C-Right>",
    next = "<M-]>",
    previous = "<M-[>",
    dismiss = "<C-]>",
    trigger = "<M-\\>",
  },
}

local function is_texts(value)
  if type(value) ~= "table" or not vim.islist(value) then
    return false
  end
  for _, one in ipairs(value) do
    if type(one) ~= "string" then
      return false
    end
  end
  return true
end

local function of_type(name)
  return function(value)
    return type(value) == name
  end
end

---@type table<string, { [1]: fun(value: any): boolean, [2]: string }>
local rules = {
  cmd = {
    function(value)
      return is_texts(value) and #value > 0
    end,
    'a list of texts, such as { "gesso-lsp" }',
  },
  cmd_env = { of_type("table"), 'names with texts, such as { GESSO_THREADS = "2" }' },
  filetypes = { is_texts, 'a list of texts, such as { "python", "lua" }' },
  root_markers = { is_texts, 'a list of texts, such as { ".git" }' },
  settings = { of_type("table"), 'a table, such as { eagerness = "calm" }' },
  native = { of_type("boolean"), "true or false" },
  debounce_ms = {
    function(value)
      return type(value) == "number" and value >= 0 and value == math.floor(value)
    end,
    "a whole number of milliseconds",
  },
  auto_restart = { of_type("boolean"), "true or false" },
  keys = { of_type("table"), 'a table, such as { accept = "<C-y>", dismiss = false }' },
}

local function names(of)
  local found = vim.tbl_keys(of)
  table.sort(found)
  return table.concat(found, ", ")
end

--- The defaults with what was given over them. Raises an error with one sentence for each thing that is wrong.
---@param given table|nil
---@return gesso.Options
function M.resolve(given)
  given = given or {}
  if type(given) ~= "table" then
    error("gesso: setup() takes a table of options; it was given a " .. type(given) .. ".", 0)
  end
  local problems = {}
  for name, value in pairs(given) do
    local rule = rules[name]
    if not rule then
      problems[#problems + 1] = ("there is no option `%s`; there are %s"):format(name, names(rules))
    elseif not rule[1](value) then
      problems[#problems + 1] = ("the option `%s` must be %s; it is %s"):format(name, rule[2], vim.inspect(value))
    end
  end
  for name, key in pairs(type(given.keys) == "table" and given.keys or {}) do
    if M.defaults.keys[name] == nil then
      problems[#problems + 1] = ("there is no key `%s`; there are %s"):format(name, names(M.defaults.keys))
    elseif key ~= false and (type(key) ~= "string" or key == "") then
      problems[#problems + 1] = ("the key `%s` must be a key such as <Tab>, or false for none"):format(name)
    end
  end
  if #problems > 0 then
    table.sort(problems)
    error("gesso: " .. table.concat(problems, "; ") .. ". See :help gesso-options.", 0)
  end
  local options = vim.tbl_extend("force", M.defaults, given)
  options.keys = vim.tbl_extend("force", M.defaults.keys, given.keys or {})
  return options
end

return M
