module github.com/managemyclaw/hardshell

go 1.26
