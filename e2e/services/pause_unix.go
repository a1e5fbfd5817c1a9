//go:build unix

package services

import "syscall"

// pause stops the process as it is: connections stay open and nothing answers.
func (p *process) pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// resume goes on after pause.
func (p *process) resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }
