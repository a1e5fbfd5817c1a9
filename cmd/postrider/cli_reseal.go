package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

type resealCmd struct {
	connection `embed:""`

	Check bool `help:"Seal nothing: only tell how many endpoints are left."`
}

// resealAnswer is one answer of the gateway, and the sum of all.
type resealAnswer struct {
	Resealed   int              `json:"resealed"`
	Left       int              `json:"left"`
	Unreadable []unreadableSeal `json:"unreadable,omitempty"`
	NextCursor string           `json:"next_cursor,omitempty"`
}

type unreadableSeal struct {
	Tenant   string `json:"tenant"`
	Endpoint string `json:"endpoint_id"`
}

// maxUnreadable bounds the endpoints that are shown.
const maxUnreadable = 1000

// Run goes through all endpoints, and fails if some are left.
func (c *resealCmd) Run(ctx context.Context, std streams) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	if c.Check {
		return c.check(ctx, client, std)
	}
	var sum resealAnswer
	for query := (url.Values{}); ; query.Set("cursor", sum.NextCursor) {
		raw, err := client.do(ctx, apiRequest{method: http.MethodPost, path: "/v1/seal-key/reseal", query: query})
		if err != nil {
			return fmt.Errorf("after %d endpoints (run it again to go on): %w", sum.Resealed, err)
		}
		var got resealAnswer
		if err := json.Unmarshal(raw, &got); err != nil {
			return fmt.Errorf("read the answer: %w", err)
		}
		sum.Resealed, sum.Left, sum.NextCursor = sum.Resealed+got.Resealed, got.Left, got.NextCursor
		sum.Unreadable = append(sum.Unreadable, got.Unreadable...)
		sum.Unreadable = sum.Unreadable[:min(len(sum.Unreadable), maxUnreadable)]
		if sum.NextCursor == "" {
			break
		}
		_, _ = fmt.Fprintf(std.err, "%d endpoints sealed again, %d left\n", sum.Resealed, sum.Left)
	}
	for _, bad := range sum.Unreadable {
		_, _ = fmt.Fprintf(std.err, "no key opens a secret of endpoint %s of tenant %s\n", bad.Endpoint, bad.Tenant)
	}
	row, err := json.Marshal(sum)
	if err != nil {
		return err
	}
	if err := c.show(std.out, []column{col("RESEALED", "resealed"), col("LEFT", "left")}, row); err != nil {
		return err
	}
	return allSealed(sum.Left)
}

func (c *resealCmd) check(ctx context.Context, client *apiClient, std streams) error {
	row, err := client.do(ctx, apiRequest{method: http.MethodGet, path: "/v1/seal-key"})
	if err != nil {
		return err
	}
	var state struct {
		Left int `json:"left"`
	}
	if err := json.Unmarshal(row, &state); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if err := c.show(std.out, []column{col("KEYS", "keys"), col("LEFT", "left")}, row); err != nil {
		return err
	}
	return allSealed(state.Left)
}

// allSealed is an error while the older keys are needed.
func allSealed(left int) error {
	if left > 0 {
		return fmt.Errorf("endpoints still sealed with an older key: %d", left)
	}
	return nil
}
