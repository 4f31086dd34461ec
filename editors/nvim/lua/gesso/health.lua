--- :checkhealth gesso
local M = {}

local health = vim.health
local REQUEST_TIMEOUT_MS = 3000

local function check_neovim()
  health.start("gesso: Neovim")
  local version = tostring(vim.version())
  if vim.fn.has("nvim-0.10") == 0 then
    return health.error("Neovim " .. version .. " is too old", "Install Neovim 0.10 or newer, preferably 0.12.")
  end
  health.ok("Neovim " .. version)
  if not require("gesso").is_set_up then
    return health.error("setup() was not called", 'Add require("gesso").setup() to your configuration.')
  end
  local native = require("gesso.actions").uses_native()
  health.ok("Suggestions are drawn by " .. (native and "Neovim's inline completion" or "the plugin"))
end

local function run(command, environment)
  local ok, process = pcall(vim.system, command, { text = true, env = environment, timeout = 15000 })
  if not ok then
    return nil
  end
  local result = process:wait()
  return result.code == 0 and vim.trim(result.stdout) or nil
end

local function check_python()
  local version = run({ "python3", "--version" })
  local minor = version and tonumber(version:match("Python 3%.(%d+)"))
  if minor and minor >= 11 then
    health.ok(version)
  else
    local found = version and version .. " is too old" or "python3 was not found"
    health.error(found, "Install Python 3.11 or newer, then Gesso.")
  end
end

local function check_command(server)
  health.start("gesso: server")
  local command = server.command()
  if not server.is_installed() then
    health.error(("`%s` was not found"):format(command[1]), {
      "Install Gesso on the PATH of this Neovim: run `pipx install .` in its repository",
      'Or set its path: require("gesso").setup({ cmd = { "/path/to/gesso-lsp" } })',
    })
    return check_python()
  end
  local version = run(vim.list_extend(vim.deepcopy(command), { "--version" }), server.environment())
  if version then
    health.ok(("%s: %s"):format(version, table.concat(command, " ")))
  else
    local full = table.concat(command, " ") .. " --version"
    health.error(("`%s` failed"):format(full), "Run it in a terminal to see the error; reinstalling Gesso may help.")
    check_python()
  end
end

local function execute(server, client, command)
  local params = { command = command, arguments = {} }
  local response = server.call(client, "request_sync", "workspace/executeCommand", params, REQUEST_TIMEOUT_MS, 0)
  return response and response.result
end

local function check_model(server)
  health.start("gesso: model")
  local client = server.client()
  if not client then
    return health.info("The server is not running; it starts with the first file you open")
  end
  local status = execute(server, client, "gesso.status")
  if not status then
    return health.error("The server does not answer", { "Run :Gesso restart", "See :Gesso log" })
  end
  if status.state == "ready" then
    health.ok(("%s is ready"):format(status.model))
  elseif status.state == "loading" then
    health.warn(("%s is loading"):format(status.model))
  else
    local message = type(status.message) == "string" and status.message or ""
    health.error(("The model is not ready (%s): %s"):format(status.state, message), "Run :Gesso restart to try again")
  end
  if not status.enabled then
    health.warn("Suggestions are switched off", "Run :Gesso toggle to switch them on")
  end
  local report = execute(server, client, "gesso.report")
  local python = report and report:match("Python [%d.]+[^\n]*")
  if python then
    health.ok("The server runs on " .. python)
  end
end

local function check_keys()
  health.start("gesso: keys")
  local server = require("gesso.server")
  local buffers = { vim.fn.bufnr("#"), unpack(vim.api.nvim_list_bufs()) }
  local bufnr = vim.iter(buffers):find(function(candidate)
    return candidate > 0 and server.client(candidate)
  end)
  if not bufnr then
    return health.info("No keys are mapped, because no open file has suggestions yet")
  end
  for _, one in ipairs(vim.api.nvim_buf_call(bufnr, require("gesso.keys").report)) do
    if one.is_ours then
      health.ok(("%s: %s"):format(one.key, one.name))
    else
      local advice = ("Set keys.%s to another key, or map `require('gesso').%s()` yourself"):format(one.name, one.name)
      health.warn(("%s has another mapping: %s"):format(one.key, one.mapping), advice)
    end
  end
end

function M.check()
  check_neovim()
  if require("gesso").is_set_up then
    local server = require("gesso.server")
    check_command(server)
    check_model(server)
    check_keys()
  end
end

return M
