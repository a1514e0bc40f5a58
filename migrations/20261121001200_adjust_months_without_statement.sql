-- Usage may come late for a month before the first that was closed: it has no statement to name.

alter table usage_statement_adjustments drop constraint usage_statement_adjustments_partner_id_of_month_fkey;
