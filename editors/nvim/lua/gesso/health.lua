--- :checkhealth gesso
local M = {}

local health = vim.health
local ASK_MS = 3000

local function check_neovim()
  health.start("gesso: Neovim")
  local version = tostring(vim.version())
  if vim.fn.has("nvim-0.10") == 0 then
    return health.error("Neovim " .. version .. " is too old", "Install Neovim 0.10 or newer; 0.12 is best.")
  end
  health.ok("Neovim " .. version)
  if not require("gesso").is_set_up then
    return health.error("setup() was not called", 'Add require("gesso").setup() to your configuration.')
  end
  local native = require("gesso.actions").uses_native()
  health.ok("suggestions are drawn by " .. (native and "Neovim's own inline completion" or "the plugin"))
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
    health.error(found, "Gesso needs Python 3.11 or newer; install it, then Gesso.")
  end
end

local function check_command(server)
  health.start("gesso: server")
  local command = server.command()
  if not server.is_found() then
    health.error(("`%s` was not found"):format(command[1]), {
      "Install Gesso where this Neovim finds it: pip install . (or pipx install .) in its repository",
      'Or say where it is: require("gesso").setup({ cmd = { "/path/to/gesso-lsp" } })',
    })
    return check_python()
  end
  local version = run(vim.list_extend(vim.deepcopy(command), { "--version" }), server.environment())
  if version then
    health.ok(("%s: %s"):format(version, table.concat(command, " ")))
  else
    local full = table.concat(command, " ") .. " --version"
    health.error(("`%s` failed"):format(full), "Run it in a terminal to see why; installing Gesso again may help.")
    check_python()
  end
end

local function ask(server, client, command)
  local params = { command = command, arguments = {} }
  local answer = server.call(client, "request_sync", "workspace/executeCommand", params, ASK_MS, 0)
  return answer and answer.result
end

local function check_model(server)
  health.start("gesso: model")
  local client = server.client()
  if not client then
    return health.info("the server is not running; it starts with the first file that is opened")
  end
  local status = ask(server, client, "gesso.status")
  if not status then
    return health.error("the server does not answer", { ":Gesso restart starts it again", ":Gesso log says more" })
  end
  if status.state == "ready" then
    health.ok(("%s is ready"):format(status.model))
  elseif status.state == "loading" then
    health.warn(("%s is loading"):format(status.model))
  else
    local message = type(status.message) == "string" and status.message or ""
    health.error(("the model is not there (%s): %s"):format(status.state, message), ":Gesso restart tries again")
  end
  if not status.enabled then
    health.warn("suggestions are switched off", ":Gesso toggle switches them on")
  end
  local report = ask(server, client, "gesso.report")
  local python = report and report:match("Python [%d.]+[^\n]*")
  if python then
    health.ok("the server runs on " .. python)
  end
end

local function check_keys()
  health.start("gesso: keys")
  local server = require("gesso.server")
  local last = vim.fn.bufnr("#")
  local bufnr
  for _, candidate in ipairs({ last, unpack(vim.api.nvim_list_bufs()) }) do
    if candidate > 0 and server.client(candidate) then
      bufnr = candidate
      break
    end
  end
  if not bufnr then
    return health.info("no open file has suggestions yet, so no keys are mapped")
  end
  for _, one in ipairs(vim.api.nvim_buf_call(bufnr, require("gesso.keys").report)) do
    if one.ours then
      health.ok(("%s: %s"):format(one.key, one.name))
    else
      local advice = ("Set keys.%s to another key, or map `require('gesso').%s()` yourself"):format(one.name, one.name)
      health.warn(("%s is mapped to something else: %s"):format(one.key, one.now), advice)
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
