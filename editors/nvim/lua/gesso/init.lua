--- Gesso in Neovim: puts the parts together. See :help gesso.
local M = {}

local needed = "nvim-0.10"

local function highlight()
  local modern = vim.fn.has("nvim-0.12") == 1
  vim.api.nvim_set_hl(0, "GessoSuggestion", { link = modern and "ComplHint" or "NonText", default = true })
  vim.api.nvim_set_hl(0, "GessoCount", { link = modern and "ComplHintMore" or "MoreMsg", default = true })
end

local function watch()
  local server, suggestions, keys = require("gesso.server"), require("gesso.actions"), require("gesso.keys")
  local events = vim.api.nvim_create_augroup("gesso", { clear = true })
  local function of_ours(run)
    return function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if client and client.name == server.NAME then
        run(event.buf, client)
      end
    end
  end
  vim.api.nvim_create_autocmd("LspAttach", {
    group = events,
    callback = of_ours(function(bufnr, client)
      suggestions.attach(bufnr, client)
      keys.map(bufnr)
    end),
  })
  vim.api.nvim_create_autocmd("LspDetach", { group = events, callback = of_ours(suggestions.detach) })
  vim.api.nvim_create_autocmd("BufEnter", {
    group = events,
    callback = function(event)
      suggestions.focus(event.buf)
    end,
  })
  vim.api.nvim_create_autocmd("ColorScheme", { group = events, callback = highlight })
end

--- Starts Gesso. Raises an error with a clear sentence for options that are wrong.
---@param given table|nil  see :help gesso-options
function M.setup(given)
  if vim.fn.has(needed) == 0 then
    error("gesso: this plugin needs Neovim 0.10 or newer.", 0)
  end
  local options = require("gesso.options").resolve(given)
  require("gesso.server").setup(options)
  require("gesso.actions").setup(options)
  require("gesso.keys").setup(options.keys)
  highlight()
  watch()
  M.is_set_up = true
  require("gesso.server").start()
end

--- For a statusline: state and the last latency, such as "gesso 48 ms"; "" where no server is running.
---@return string
function M.status()
  local state = require("gesso.server").state
  if state.state == "stopped" then
    return ""
  end
  if not state.enabled then
    return "gesso off"
  end
  if state.state ~= "ready" then
    return "gesso " .. state.state
  end
  return type(state.latencyMs) == "number" and ("gesso %d ms"):format(state.latencyMs) or "gesso ready"
end

for _, name in ipairs({ "accept", "accept_word", "accept_line", "dismiss", "cycle", "trigger", "is_visible" }) do
  M[name] = function(...)
    return require("gesso.actions")[name](...)
  end
end

return M
