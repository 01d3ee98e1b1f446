module github.com/managemyclaw/hardshell/examples/customcheck

go 1.26.0

require github.com/managemyclaw/hardshell v0.0.0

replace github.com/managemyclaw/hardshell => ../..
