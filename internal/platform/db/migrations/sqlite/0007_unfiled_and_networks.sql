-- Certificates that the database had lost, as one does that is restored from a backup. And where claims come from, as
-- far as one stranger can have many addresses.

-- +goose Up
ALTER TABLE certificates ADD COLUMN unfiled INTEGER NOT NULL DEFAULT 0;

-- The network of the last poll, and the site that it is in: of IPv6 64 and 56 bits, else the address. Rows of before
-- have it with their next poll.
ALTER TABLE claims ADD COLUMN network TEXT NOT NULL DEFAULT '';
ALTER TABLE claims ADD COLUMN site TEXT NOT NULL DEFAULT '';
DROP INDEX claims_address;
CREATE INDEX claims_network ON claims (network);
CREATE INDEX claims_site ON claims (site);
