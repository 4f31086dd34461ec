-- Defines the command :Gesso at startup. `require("gesso").setup()` loads and starts the plugin.
if vim.g.loaded_gesso then
  return
end
vim.g.loaded_gesso = true

vim.api.nvim_create_user_command("Gesso", function(arguments)
  require("gesso.commands").run(arguments.fargs, { arguments.line1, arguments.line2 })
end, {
  nargs = "*",
  range = true,
  desc = "Gesso: status, toggle, trigger, edit, why, report, restart, log",
  complete = function(lead, line)
    return require("gesso.commands").complete(lead, line)
  end,
})
