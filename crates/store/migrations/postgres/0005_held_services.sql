-- The provisioning service was told to leave the machine alone, since the BMC refuses the account that it shares with the cell.
-- Written before it is told, and gone only once it was seen to have been let go.
ALTER TABLE machines ADD COLUMN held BIGINT NOT NULL DEFAULT 0;
