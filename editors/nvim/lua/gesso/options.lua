--- Options of `setup()`: defaults and validation. The server's own settings are passed on unchecked.
local M = {}

---@class gesso.Keys  keys, or false for no mapping
---@field accept string|false
---@field accept_word string|false
---@field accept_line string|false
---@field next string|false
---@field previous string|false
---@field dismiss string|false
---@field trigger string|false
---@field take_edit string|false  in normal mode, as the next one
---@field drop_edit string|false

---@class gesso.Options
---@field cmd string[]|nil  the server's command; nil: gesso-lsp on PATH
---@field cmd_env table<string, string>|nil  additional environment variables of the server
---@field filetypes string[]|nil  nil: all
---@field root_markers string[]  files that mark a project's root folder
---@field settings table  the server's settings (section "gesso")
---@field trust_projects boolean  let gesso.toml of every project choose the model and the device
---@field native boolean  use Neovim's inline completion if it has one
---@field debounce_ms integer  without `native`: wait after a key before a request
---@field auto_restart boolean  restart the server after a crash
---@field keys gesso.Keys
M.defaults = {
  cmd = nil,
  cmd_env = nil,
  filetypes = nil,
  root_markers = { ".git", "gesso.toml", "pyproject.toml", "package.json", "Cargo.toml", "go.mod" },
  settings = {},
  trust_projects = false,
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
    take_edit = "<Tab>",
    drop_edit = "<Esc>",
  },
}

local function is_string_list(value)
  return type(value) == "table"
    and vim.islist(value)
    and vim.iter(value):all(function(one)
      return type(one) == "string"
    end)
end

local function is_of_type(name)
  return function(value)
    return type(value) == name
  end
end

---@type table<string, { is_valid: fun(value: any): boolean, expected: string }>
local rules = {
  cmd = {
    is_valid = function(value)
      return is_string_list(value) and #value > 0
    end,
    expected = 'a list of strings, such as { "gesso-lsp" }',
  },
  cmd_env = { is_valid = is_of_type("table"), expected = 'a table of strings, such as { GESSO_THREADS = "2" }' },
  filetypes = { is_valid = is_string_list, expected = 'a list of strings, such as { "python", "lua" }' },
  root_markers = { is_valid = is_string_list, expected = 'a list of strings, such as { ".git" }' },
  settings = { is_valid = is_of_type("table"), expected = 'a table, such as { eagerness = "calm" }' },
  trust_projects = { is_valid = is_of_type("boolean"), expected = "true or false" },
  native = { is_valid = is_of_type("boolean"), expected = "true or false" },
  debounce_ms = {
    is_valid = function(value)
      return type(value) == "number" and value >= 0 and value == math.floor(value)
    end,
    expected = "a whole number of milliseconds",
  },
  auto_restart = { is_valid = is_of_type("boolean"), expected = "true or false" },
  keys = { is_valid = is_of_type("table"), expected = 'a table, such as { accept = "<C-y>", dismiss = false }' },
}

local function sorted_names(map)
  local names = vim.tbl_keys(map)
  table.sort(names)
  return table.concat(names, ", ")
end

--- The defaults, overridden by the user's options. Raises an error that describes all invalid options.
---@param user_options table|nil
---@return gesso.Options
function M.resolve(user_options)
  user_options = user_options or {}
  if type(user_options) ~= "table" then
    error("gesso: setup() expects a table of options, not a " .. type(user_options) .. ".", 0)
  end
  local problems = {}
  for name, value in pairs(user_options) do
    local rule = rules[name]
    if not rule then
      problems[#problems + 1] = ("unknown option `%s`; use one of %s"):format(name, sorted_names(rules))
    elseif not rule.is_valid(value) then
      local problem = "the option `%s` must be %s; it is %s"
      problems[#problems + 1] = problem:format(name, rule.expected, vim.inspect(value))
    end
  end
  for name, key in pairs(type(user_options.keys) == "table" and user_options.keys or {}) do
    if M.defaults.keys[name] == nil then
      problems[#problems + 1] = ("unknown key `%s`; use one of %s"):format(name, sorted_names(M.defaults.keys))
    elseif key ~= false and (type(key) ~= "string" or key == "") then
      problems[#problems + 1] = ("the key `%s` must be a key such as <Tab>, or false for no mapping"):format(name)
    end
  end
  if #problems > 0 then
    table.sort(problems)
    error("gesso: " .. table.concat(problems, "; ") .. ". See :help gesso-options.", 0)
  end
  local options = vim.tbl_extend("force", M.defaults, user_options)
  options.keys = vim.tbl_extend("force", M.defaults.keys, user_options.keys or {})
  return options
end

return M
