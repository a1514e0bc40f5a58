-- First start, after db-init.sql: what SQL may know about tokens. Not the secret that they are
-- signed with: a setting of the database can be read by everybody who reaches it, and nothing that
-- the contract names reads it there.

\set seconds `echo "${JWT_EXP:-3600}"`
ALTER DATABASE :"DBNAME" SET "app.settings.jwt_exp" TO :'seconds';
