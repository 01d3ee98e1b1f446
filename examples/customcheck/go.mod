module github.com/managemyclaw/hardshell/examples/customcheck

go 1.26.0

require github.com/managemyclaw/hardshell v0.0.0

require golang.org/x/mod v0.42.0 // indirect

replace github.com/managemyclaw/hardshell => ../..
