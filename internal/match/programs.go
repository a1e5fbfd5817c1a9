package match

import (
	"fmt"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/maypok86/otter/v2"
)

// Config are the limits of filters. The zero value is the default.
type Config struct {
	// MaxPrograms is how many compiled filters are kept for the whole process;
	// 0 means 4,096. A set keeps its own programs alive beyond that.
	MaxPrograms int
	// CostLimit is what one evaluation may cost, in units of CEL cost of about
	// 0.1 µs; 0 means 100,000.
	CostLimit uint64
	// Timeout ends an evaluation with comprehensions that the cost limit did not
	// end: the last resort. 0 means 1 s.
	Timeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.MaxPrograms == 0 {
		c.MaxPrograms = 4096
	}
	if c.CostLimit == 0 {
		c.CostLimit = 100_000
	}
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	return c
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
	if cfg.MaxPrograms < 0 || cfg.Timeout < 0 {
		return nil, fmt.Errorf("filter limits must not be negative: %d programs, timeout %s", cfg.MaxPrograms, cfg.Timeout)
	}
	cfg = cfg.withDefaults()
	env, err := newEnv()
	if err != nil {
		return nil, fmt.Errorf("make filter environment: %w", err)
	}
	cache, err := otter.New(&otter.Options[string, *program]{
		MaximumSize: cfg.MaxPrograms,
		Executor:    func(fn func()) { fn() }, // evict in place: no goroutine of ours
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
