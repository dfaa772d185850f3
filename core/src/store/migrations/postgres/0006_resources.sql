-- What each instance of a release may use of the machine.
ALTER TABLE releases ADD COLUMN resources TEXT NOT NULL DEFAULT '{}';
