package e2e

import "syscall"

// freeze stops a process in its tracks: its connections stay, nothing answers.
func (g *gateway) freeze(instance string) { g.signal(instance, syscall.SIGSTOP) }

// thaw lets a frozen process go on.
func (g *gateway) thaw(instance string) { g.signal(instance, syscall.SIGCONT) }
