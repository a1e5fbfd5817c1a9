package registry

import (
	"context"
	_ "embed" // the scripts
	"fmt"

	"github.com/redis/go-redis/v9"
)

//go:embed apply.lua
var applySource string

//go:embed begin.lua
var beginSource string

//go:embed sweep.lua
var sweepSource string

//go:embed compare.lua
var compareSource string

//go:embed invalidate.lua
var invalidateSource string

// call is one run of a script. All keys are in one slot.
type call struct {
	keys []string
	args []any
}

// runAll runs a script once per call, in one pipeline, and returns the answers
// in order. A Redis that does not know the script (yet) gets its source in a
// second pipeline. Every script of this package may run again after an answer
// was lost.
func runAll(ctx context.Context, rdb redis.UniversalClient, script *redis.Script, calls []call) ([]*redis.Cmd, error) {
	answers := make([]*redis.Cmd, len(calls))
	todo := make([]int, len(calls))
	for i := range todo {
		todo[i] = i
	}
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, i := range todo {
			answers[i] = script.EvalSha(ctx, p, calls[i].keys, calls[i].args...)
		}
		return nil
	})
	if err == nil {
		return answers, nil
	}
	unknown := todo[:0]
	for i, a := range answers {
		switch err := a.Err(); {
		case err == nil:
		case redis.HasErrorPrefix(err, "NOSCRIPT"):
			unknown = append(unknown, i)
		default:
			return nil, fmt.Errorf("run script: %w", err)
		}
	}
	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, i := range unknown {
			answers[i] = script.Eval(ctx, p, calls[i].keys, calls[i].args...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("run script: %w", err)
	}
	return answers, nil
}

// runOne runs a script that answers with a number.
func runOne(ctx context.Context, rdb redis.UniversalClient, script *redis.Script, c call) (int64, error) {
	answers, err := runAll(ctx, rdb, script, []call{c})
	if err != nil {
		return 0, err
	}
	return answers[0].Int64()
}
