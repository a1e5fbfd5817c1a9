package main

import "context"

type deliveriesCmd struct {
	connection `embed:""`

	Cancel deliveriesCancelCmd `cmd:"" help:"Ask for a delivery to be cancelled; an attempt that is under way is finished."`
}

type deliveriesCancelCmd struct {
	ID       string `arg:"" help:"The delivery's id, dlv_…"`
	Endpoint string `required:"" placeholder:"EP" help:"The endpoint that the delivery is for."`
}

// Run asks for the cancel.
func (c *deliveriesCancelCmd) Run(ctx context.Context, conn *connection, std streams) error {
	return verb(ctx, conn, std, exchange{body: settings{"endpoint_id": c.Endpoint}}, "deliveries", c.ID, "cancel")
}
