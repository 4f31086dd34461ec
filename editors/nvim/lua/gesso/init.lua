--- The plugin's entry point and public functions. See :help gesso.
local M = {}

local function define_highlights()
  local has_hint = vim.fn.has("nvim-0.12") == 1
  vim.api.nvim_set_hl(0, "GessoSuggestion", { link = has_hint and "ComplHint" or "NonText", default = true })
  vim.api.nvim_set_hl(0, "GessoNextEditOld", { link = "DiffDelete", default = true })
  vim.api.nvim_set_hl(0, "GessoNextEditNew", { link = "DiffAdd", default = true })
  vim.api.nvim_set_hl(0, "GessoNextEditReason", { link = "Comment", default = true })
  vim.api.nvim_set_hl(0, "GessoCount", { link = has_hint and "ComplHintMore" or "MoreMsg", default = true })
end

local function create_autocmds()
  local server, actions, keys = require("gesso.server"), require("gesso.actions"), require("gesso.keys")
  local cursor, next_edit = require("gesso.cursor"), require("gesso.next_edit")
  local events = vim.api.nvim_create_augroup("gesso", { clear = true })
  local function for_our_client(run)
    return function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if client and client.name == server.NAME then
        run(event.buf, client, event.data)
      end
    end
  end
  vim.api.nvim_create_autocmd("LspAttach", {
    group = events,
    callback = for_our_client(function(bufnr, client)
      actions.attach(bufnr, client)
      keys.map(bufnr)
      cursor.enable(bufnr, client.id)
      next_edit.enable(bufnr, client.id)
    end),
  })
  vim.api.nvim_create_autocmd("LspDetach", {
    group = events,
    callback = for_our_client(function(bufnr)
      actions.detach(bufnr)
      cursor.disable(bufnr)
      next_edit.disable(bufnr)
    end),
  })
  vim.api.nvim_create_autocmd("LspProgress", {
    group = events,
    pattern = "begin",
    callback = for_our_client(function(_, _, data)
      local progress = data.params and data.params.value or {}
      if progress.cancellable then -- a download, which takes minutes
        vim.notify(progress.title .. " in the background; `:Gesso download` says how much is done")
      end
    end),
  })
  vim.api.nvim_create_autocmd("BufEnter", {
    group = events,
    callback = function(event)
      actions.focus(event.buf)
    end,
  })
  vim.api.nvim_create_autocmd("ColorScheme", { group = events, callback = define_highlights })
end

--- Starts Gesso. Raises an error that describes invalid options.
---@param user_options table|nil  see :help gesso-options
function M.setup(user_options)
  if vim.fn.has("nvim-0.10") == 0 then
    error("gesso: this plugin needs Neovim 0.10 or newer.", 0)
  end
  local options = require("gesso.options").resolve(user_options)
  require("gesso.server").setup(options)
  require("gesso.actions").setup(options)
  require("gesso.keys").setup(options.keys)
  define_highlights()
  create_autocmds()
  M.is_set_up = true
  require("gesso.server").start()
end

--- State and last latency for a statusline, such as "gesso 48 ms"; "" if no server is running.
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

--- Goes to the next edit if it is off screen, otherwise applies it; false if there is none.
---@return boolean
function M.take_edit()
  return require("gesso.next_edit").take()
end

--- Hides the next edit; false if there is none.
---@return boolean
function M.drop_edit()
  return require("gesso.next_edit").drop()
end

return M
