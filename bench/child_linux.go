package main

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the child when this process dies.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
