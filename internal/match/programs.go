package match

import (
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/maypok86/otter/v2"
)

// Config are the limits of filters. The zero value is the default.
type Config struct {
	// MaxBytes bounds the compiled filters that are kept for the whole process, in
	// bytes of memory as [ProgramBytes] estimates them; 0 means 128 MiB. A set keeps
	// its own programs alive beyond that.
	MaxBytes int
	// CostLimit is what one evaluation may cost, in units of CEL cost of about
	// 0.1 µs; 0 means 100,000.
	CostLimit uint64
	// Timeout ends an evaluation with comprehensions that the cost limit did not
	// end: the last resort. 0 means 1 s.
	Timeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxBytes == 0 {
		c.MaxBytes = 128 << 20
	}
	if c.CostLimit == 0 {
		c.CostLimit = 100_000
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	return c
}

// ProgramBytes estimates what a filter takes in memory when it is compiled. Measured
// were 1.7 KB for a short one, and of 2 KiB 5 KB for one long string and 110 KB for
// nothing but operators; it is the most that a text of that length can take.
func ProgramBytes(expr string) int {
	const program, perByte = 1536, 54
	return program + perByte*len(expr)
}

// Programs compiles filters and keeps the programs, bounded, for all tenants of the
// process: a tenant's reload compiles only what is new. It may be used by many
// goroutines at once.
type Programs struct {
	cfg   Config
	env   *cel.Env
	cache *otter.Cache[string, *program]

	// Test hooks, nil outside of tests; set before first use.
	onCompile func(expr string)
	onEval    func(expr string)
}

// NewPrograms returns an empty cache.
func NewPrograms(cfg Config) (*Programs, error) {
	if cfg.MaxBytes < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("filter limits must not be negative: %d bytes of programs, timeout %s", cfg.MaxBytes, cfg.Timeout)
	}
	cfg = cfg.withDefaults()
	env, err := newEnv()
	if err != nil {
		return nil, fmt.Errorf("make filter environment: %w", err)
	}
	cache, err := otter.New(&otter.Options[string, *program]{
		MaximumWeight: uint64(cfg.MaxBytes),
		Weigher:       func(expr string, _ *program) uint32 { return uint32(ProgramBytes(expr)) }, //nolint:gosec // MaxFilter bounds it
		Executor:      func(fn func()) { fn() },                                                   // evict in place: no goroutine of ours
	})
	if err != nil {
		return nil, fmt.Errorf("make cache of filter programs: %w", err)
	}
	return &Programs{cfg: cfg, env: env, cache: cache}, nil
}

// CheckFilter is like the function CheckFilter, with the limits of p and without
// building an environment each time.
func (p *Programs) CheckFilter(expr string) error {
	_, err := p.check(expr)
	return err
}

// load returns the program of the filter, compiling it if it is not cached. Errors
// are not kept.
func (p *Programs) load(expr string) (*program, error) {
	if prog, ok := p.cache.GetIfPresent(expr); ok {
		return prog, nil
	}
	prog, err := p.compile(expr)
	if err != nil {
		return nil, err
	}
	// Two goroutines may have compiled the same filter: both programs are good.
	p.cache.Set(expr, prog)
	return prog, nil
}
